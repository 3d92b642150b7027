"""A party's port for browsers: whoever comes is a stranger until a request shows a token that holds.

A browser can show no client certificate when a page of another origin asks. So the port asks for none in the handshake.
What the clients' port knows from the handshake, this one knows from the first token. Until then, a connection has a
stranger's place at the door and a stranger's time; few bytes of it are read, and its requests take turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse, Response

from secformer.mpc.errors import AuthError
from secformer.mpc.net.door import TICK
from secformer.mpc.net.tls import Context, name_of, role_of
from secformer.roles.connections import ClientProtocol, Peer, identified
from secformer.roles.origins import VARY, Asked, Header
from secformer.roles.tokens import TokenRefused, Tokens

PORT = "browsers"        # in logs and metrics
TURNS = 4                # requests of strangers that are looked at in a tick of the door: each costs a millisecond
TRIES = 2                # tokens that a stranger may show on one connection
HEARD = 1 << 19          # bytes of a connection that are read before it shows a token that holds
OF_CLIENT = frozenset({"spent", "too many"})  # why a token that holds is refused all the same
_SCHEME = b"bearer "

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gate:
    """What all connections of the port share.

    origins  of the pages that may ask
    context  knows which certificates hold no more
    count    counts a request that was refused here, by why
    """

    origins: Sequence[str]
    tokens: Tokens
    context: Context
    count: Callable[[str], None] = field(repr=False)
    turns: Turns = field(default_factory=lambda: Turns(TURNS), repr=False)

    def peer(self, headers: Sequence[Header]) -> Peer:
        """Whose token a request shows. Raises TokenRefused."""
        shown = [value for name, value in headers if name == b"authorization"]
        if len(shown) != 1 or shown[0][:len(_SCHEME)].lower() != _SCHEME:
            raise TokenRefused("none", "a request at this port shows one token: Authorization: Bearer TOKEN; "
                                       "`secformer token` makes one for each party")
        certificate = self.tokens.check(shown[0][len(_SCHEME):].decode("latin-1"))
        return Peer(role_of(certificate), name_of(certificate), certificate, self.context, PORT)


class Turns:
    """Lets a number of strangers' requests pass in each tick of the door. The others wait, and who came last passes
    first: it is likeliest to wait still. For the loop's thread."""

    def __init__(self, each: int):
        self._each, self._passed = each, 0
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._ticking = False

    def take(self) -> asyncio.Future[None]:
        """A turn: it is done when the request may go on."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting[turn] = None
        if not self._ticking:
            self._ticking = True
            loop.call_later(TICK, self._tick)
        self._pass()
        return turn

    def leave(self, turn: asyncio.Future[None]) -> None:
        """Ends a turn that nobody needs any more."""
        if turn in self._waiting:
            del self._waiting[turn]
            turn.set_result(None)

    def _tick(self) -> None:
        self._ticking, self._passed = self._passed > 0, 0
        if self._ticking:
            asyncio.get_running_loop().call_later(TICK, self._tick)
        self._pass()

    def _pass(self) -> None:
        while self._waiting and self._passed < self._each:
            self._passed += 1
            self._waiting.popitem()[0].set_result(None)


class BrowserProtocol(ClientProtocol):
    """The protocol of browsers. A connection belongs to the client of the token that it has shown last."""

    def __init__(self, *, gate: Gate, **client: Any):
        super().__init__(**client)
        self._gate, self._inner, self.app = gate, self.app, self._ask
        self._known, self._told = False, self.loop.create_future()
        self._heard = self._tries = 0
        self._problem = ""
        self._turn: asyncio.Future[None] | None = None

    def _meet(self) -> None:
        """Nothing is known of a browser yet."""

    async def proved(self) -> None:
        try:
            await self._told
        except asyncio.CancelledError:  # the door needs the place, or it took too long
            self.transport.abort()
            raise
        if not self._known:
            raise AuthError(self._problem) if self._problem else ConnectionError("it left before it showed a token")

    def data_received(self, data: bytes) -> None:
        self._heard += 0 if self._known else len(data)
        if self._heard > HEARD:
            self._problem = f"it sent more than {HEARD} bytes before it showed a token that holds"
            self.transport.abort()
            return
        super().data_received(data)
        if not self._known and not self.idle():
            self.flow.pause_reading()  # until the token is known to hold, or the request is answered

    def connection_lost(self, exc: Exception | None) -> None:
        if self._turn is not None:
            self._gate.turns.leave(self._turn)
        self._tell()
        super().connection_lost(exc)

    def _tell(self) -> None:
        if not self._told.done():
            self._told.set_result(None)

    async def _ask(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """One request: the origin first, then the token, and then what the clients' port answers to it."""
        if not self._known:
            self._turn = self._gate.turns.take()
            await self._turn
        asked = Asked(scope["method"], scope["headers"])
        if not asked.allowed(self._gate.origins):
            answer = self._refuse("origin", "pages of this origin may not ask here", 403, [VARY])
        elif asked.preflight:
            answer = Response(status_code=204)
            answer.raw_headers += asked.permission()
        else:
            send = _told(send, asked.answer())
            try:
                peer = self._gate.peer(scope["headers"])
            except TokenRefused as error:
                answer = self._refused(error)
            else:
                await self._let_in(peer)(scope, receive, send)
                return
        await answer(scope, receive, send)

    def _let_in(self, peer: Peer) -> Any:
        """What answers a request of this client."""
        refused = self._enter(peer) if self.peer is None or self.peer.name != peer.name else None
        self._known, self.peer = True, peer
        self._tell()
        if self._place is not None:
            self._place.busy = True
        return identified(self._inner, peer, self._connected) if refused is None else refused

    def _refused(self, error: TokenRefused) -> Response:
        """Refuses a request for its token. A stranger that tries too often is hung up on."""
        self._tries += 1
        more = {} if self._known or self._tries < TRIES else {"Connection": "close"}
        if error.why in OF_CLIENT:
            return self._refuse(error.why, str(error), 429, [], more)
        return self._refuse(error.why, str(error), 401, [], more | {"WWW-Authenticate": "Bearer"})

    def _refuse(self, why: str, problem: str, status: int, headers: Sequence[Header],
                more: Mapping[str, str] | None = None) -> Response:
        self._problem = problem
        self._gate.count(why)
        log.warning("browser refused", extra={"fields": {"from": str(self.client), "why": why, "problem": problem}})
        kind = "origin" if why == "origin" else "token"
        answer = JSONResponse({"error": {"kind": kind, "message": problem, "request": None}}, status, more)
        answer.raw_headers += headers
        return answer


def _told(send: Any, headers: Sequence[Header]) -> Any:
    """Sends an answer with these headers in addition."""
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *headers]}
        await send(message)

    return sending
