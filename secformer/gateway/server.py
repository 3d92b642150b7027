"""The gateway's port: where it may listen, its connections, and its end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from starlette.responses import JSONResponse
from uvicorn import Config

from secformer.gateway.desk import Desk
from secformer.gateway.refusals import RETRY_AFTER, Refusal
from secformer.gateway.web import REQUESTS, Gateway
from secformer.mpc.errors import ProtocolError, SettingsError
from secformer.mpc.net.credentials import own_context
from secformer.mpc.net.door import Refused
from secformer.mpc.net.places import Places, site
from secformer.mpc.net.tcp import Socket, listening
from secformer.roles.connections import LONGEST_HEADER, DoorServer, PlacedProtocol

PATIENCE = 30.0       # seconds in which a request must have arrived
KEEP_ALIVE = 60       # seconds for which an idle connection is kept
GRACE = 5.0           # seconds in which what runs may end when the gateway does
LEAVING = 5.0         # seconds in which answers may still be read after that
CONNECTIONS = 2 * REQUESTS
LEAST_KEY = 16        # characters of an API key
Address = tuple[str, int]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Port:
    """Where and how the gateway listens. Raises SettingsError for what would not be safe.

    certificate, key  PEM files: then it speaks HTTPS
    api_key           what callers must show
    """

    address: Address
    certificate: str | Path | None = None
    key: str | Path | None = None
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise SettingsError("a certificate and its key belong together; give both, or neither")
        if self.api_key is not None and (len(self.api_key) < LEAST_KEY or not self.api_key.isascii()
                                         or not self.api_key.isprintable() or " " in self.api_key):
            raise SettingsError(f"an API key must have at least {LEAST_KEY} printable ASCII characters and no space; "
                                f"make one, for example with: openssl rand -hex 24")
        missing = [what for what, there in (("a certificate and its key", self.certificate),
                                            ("an API key", self.api_key)) if there is None]
        if not self.local and missing:
            raise SettingsError(f"{self.address[0]} is not the loopback address, so others can reach it: listening "
                                f"there needs {' and '.join(missing)}. Or listen on 127.0.0.1")

    @property
    def local(self) -> bool:
        """Whether it listens on the loopback address."""
        if self.address[0] == "localhost":
            return True
        try:
            return ip_address(self.address[0]).is_loopback
        except ValueError:
            return False


class CallerProtocol(PlacedProtocol):
    """The protocol of callers. An idle connection gives way to a new one; where all are busy, a new one is told so."""

    def __init__(self, *, callers: Places, **patient: Any):
        super().__init__(patience=PATIENCE, **patient)
        self._callers = callers

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._place = self._callers.enter(site(self.client[0]) if self.client else "", transport.abort)
        if self._place is None:
            self.app = _full


async def _full(scope: Any, receive: Any, send: Any) -> None:
    refusal = Refusal(429, "too_many_connections", f"{CONNECTIONS} connections are busy; try again later",
                      after=RETRY_AFTER)
    await JSONResponse(refusal.body, refusal.status, refusal.headers | {"Connection": "close"})(scope, receive, send)


class _Server(DoorServer):
    """`DoorServer`, where a caller without TLS is no stranger any more once it speaks HTTP."""

    async def _plain(self, connection: Socket, where: str) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)


class GatewayServer:
    """A gateway that serves in a thread of its own, from its construction until `close`.

    Use it as a context manager. It takes the desks over, and closes them. Raises SettingsError if the address is taken.
    """

    def __init__(self, port: Port, desks: Sequence[Desk]):
        self.port, self._gateway = port, Gateway(desks, key=port.api_key, local=port.local)
        try:
            context = None if port.certificate is None or port.key is None else own_context(port.certificate, port.key)
            sock = listening(port.address)
        except BaseException:
            self._gateway.close()
            raise
        self.address: Address = sock.getsockname()[:2]
        config = Config(self._gateway, log_config=None, access_log=False, lifespan="off", ws="none",
                        server_header=False, timeout_keep_alive=KEEP_ALIVE,
                        h11_max_incomplete_event_size=LONGEST_HEADER, timeout_graceful_shutdown=round(GRACE + LEAVING))
        self._server = _Server(config, partial(CallerProtocol, callers=Places(CONNECTIONS)), sock,
                                  Places(CONNECTIONS + REQUESTS), _not_let_in, context)
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What callers are given as the base of their requests."""
        host, port = self.address
        scheme = "http" if self.port.certificate is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/v1"

    @property
    def about(self) -> str:
        """One line for the terminal."""
        return f"The gateway serves {', '.join(self._gateway.desks)} at {self.url}."

    def require_running(self) -> None:
        """Raises ProtocolError if it has ended by itself."""
        if not self._thread.is_alive():
            raise ProtocolError("the gateway has ended by itself; its log says why")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._server.serve())

    def close(self, grace: float = GRACE) -> None:
        """Lets what runs end, for `grace` seconds; then hangs up on the parties. Callers get their answer, or learn
        that the gateway ends. Closing twice is allowed."""
        self._gateway.drain()
        self._server.should_exit = True
        self._thread.join(grace)
        self._gateway.close()
        self._thread.join(LEAVING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def _not_let_in(refused: Refused) -> None:
    log.warning("connection refused", extra={"fields": {"from": refused.where, "why": refused.why}})
