"""Connections of clients to a party: whom a connection belongs to, and how long a request may take to arrive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import h11
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from secformer.mpc.errors import AuthError
from secformer.mpc.net.tls import HANDSHAKE, Certificate, Context, name_of, role_of

App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]
PEER = "secformer.peer"  # a request's scope holds its Peer under this key

log = logging.getLogger(__name__)


class PatientLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, which gives clients `HANDSHAKE` seconds for the TLS handshake; uvicorn would give a minute."""

    async def create_server(self, *args: Any, **settings: Any) -> asyncio.Server:
        if settings.get("ssl") is not None:
            settings.setdefault("ssl_handshake_timeout", HANDSHAKE)
        return await super().create_server(*args, **settings)


@dataclass(frozen=True, eq=False)
class Peer:
    """Who is at the other end of a connection, as its certificate proved in the handshake."""

    role: str
    name: str
    certificate: Certificate | None = field(default=None, repr=False)
    context: Context | None = field(default=None, repr=False)

    def objection(self) -> str:
        """Why the certificate does not hold any more, in words for its owner; "" if it does."""
        problem = self.context.objection(self.certificate) if self.context is not None else ""
        return f"the certificate {self.name!r} {problem}; ask the operator for a new one" if problem else ""


class Clients:
    """The connections that are open, and the certificate that each client has shown last. For the loop's thread."""

    def __init__(self) -> None:
        self._open: set[Any] = set()
        self._last: dict[str, Peer] = {}

    def came(self, connection: Any) -> None:
        self._open.add(connection)

    def left(self, connection: Any) -> None:
        self._open.discard(connection)

    def asked(self, peer: Peer) -> None:
        """This client sends a request."""
        self._last[peer.name] = peer

    def end_invalid(self) -> dict[str, str]:
        """Closes idle connections whose certificates do not hold any more; a running request notices it itself. Names
        clients that have shown no other certificate since, with the reason."""
        for each in [each for each in self._open if each.peer.objection() and each.idle()]:
            each.transport.abort()
        gone = {name: problem for name, peer in self._last.items() if (problem := peer.objection())}
        for name in gone:
            del self._last[name]
        return gone


def refused(problem: str) -> None:
    """Logs that a TLS handshake failed. asyncio does not tell the client's address."""
    log.warning("connection refused", extra={"fields": {"problem": f"handshake failed: {problem}"}})


class OrderlyProtocol(H11Protocol):
    """uvicorn's protocol; the application of a request that turns out malformed sends nothing after the refusal."""

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # h11 would not take its answer
            self.cycle.message_event.set()
        super().send_400_response(msg)


def client_protocol(patience: float, clients: Clients) -> type[H11Protocol]:
    """`OrderlyProtocol`, with the peer in the scope of its requests; `clients` holds its connections. If a request has
    not arrived completely within `patience` seconds, the connection is dropped."""

    class ClientProtocol(OrderlyProtocol):
        _timer: asyncio.TimerHandle | None = None
        peer: Peer

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            connection = transport.get_extra_info("ssl_object")
            certificate = connection.getpeercert() if connection is not None else None
            try:
                self.peer = Peer(role_of(certificate), name_of(certificate), certificate, connection.context)
            except AuthError as error:
                log.warning("connection refused", extra={"fields": {"from": str(self.client), "problem": str(error)}})
                transport.abort()
                return
            self.app = _with_peer(self.app, self.peer, clients)
            clients.came(self)
            self._arm()

        def idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def data_received(self, data: bytes) -> None:
            self._arm()
            super().data_received(data)
            if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):  # it is complete, or refused
                self._disarm()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            clients.left(self)
            super().connection_lost(exc)

        def _arm(self) -> None:
            if self._timer is None:
                self._timer = self.loop.call_later(patience, self._late)

        def _disarm(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            self._timer = None
            log.warning("connection dropped", extra={"fields": {
                "from": str(self.client), "problem": f"no complete request within {patience:g} s"}})
            self.transport.abort()

    return ClientProtocol


def _with_peer(app: Any, peer: Peer, clients: Clients) -> App:
    async def identified(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if problem := peer.objection():
            log.warning("connection refused", extra={"fields": {"client": peer.name, "problem": problem}})
            answer = JSONResponse({"error": {"kind": "certificate", "message": problem, "request": None}}, 403)
            await answer(scope, receive, send)
            return
        clients.asked(peer)
        await app({**scope, PEER: peer}, receive, send)

    return identified
