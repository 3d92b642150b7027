"""Connections of clients to a party: who they belong to, how many there may be, and how long a request may take.

Strangers are kept at a door (`mpc/net/door`). A client that has proved who it is takes a place among the clients'.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
from starlette.responses import JSONResponse
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from secformer.mpc.errors import AuthError
from secformer.mpc.net.door import Door, Meet, Report, opens_http, opens_tls
from secformer.mpc.net.places import Place, Places
from secformer.mpc.net.tcp import Socket
from secformer.mpc.net.tls import HANDSHAKE, Certificate, Context, TLSError, name_of, reason, role_of

App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]
PEER = "secformer.peer"  # a request's scope holds its Peer under this key
GOODBYE = 3.0            # seconds in which a peer must say goodbye when this side closes
LONGEST_HEADER = 1 << 14 # bytes of a request's header

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Peer:
    """Who is at the other end of a connection, as its certificate proved in the handshake, or signed in a token."""

    role: str
    name: str
    certificate: Certificate | None = field(default=None, repr=False)
    context: Context | None = field(default=None, repr=False)
    port: str = "clients"

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


class OrderlyProtocol(H11Protocol):
    """uvicorn's protocol; the application of a request that turns out malformed sends nothing after the refusal."""

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # h11 would not take its answer
            self.cycle.message_event.set()
        super().send_400_response(msg)


class PatientProtocol(OrderlyProtocol):
    """`OrderlyProtocol`. A connection is dropped if a request has not arrived completely within `patience` seconds."""

    def __init__(self, *, patience: float, **served: Any):
        super().__init__(**served)
        self.gone: asyncio.Future[None] = self.loop.create_future()
        self._coming = _Deadline(self.loop, patience, lambda: self._drop(patience))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._coming.start()

    def data_received(self, data: bytes) -> None:
        self._coming.start()
        super().data_received(data)

    async def proved(self) -> None:
        """Returns once the other end has proved who it is, if it must. Raises AuthError, OSError."""

    def handle_events(self) -> None:
        """Also called for what has come before its turn, when the answer before it is complete."""
        super().handle_events()
        if self.conn.their_state is h11.SEND_BODY:
            self._coming.start()
        elif self.conn.their_state is not h11.IDLE:  # the request is complete, or refused
            self._coming.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._coming.stop()
        super().connection_lost(exc)
        if not self.gone.done():
            self.gone.set_result(None)

    def _drop(self, patience: float) -> None:
        log.warning("connection dropped", extra={"fields": {
            "from": str(self.client), "problem": f"no complete request within {patience:g} s"}})
        self.transport.abort()


class PlacedProtocol(PatientProtocol):
    """`PatientProtocol`, for connections that have a place of their own: it is busy while a request is answered."""

    def __init__(self, **patient: Any):
        super().__init__(**patient)
        self._place: Place | None = None

    def handle_events(self) -> None:
        super().handle_events()
        if self._place is not None and self.cycle is not None and not self.cycle.response_complete:
            self._place.busy = True

    def on_response_complete(self) -> None:
        if self._place is not None:
            self._place.rest()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def _leave(self) -> None:
        if self._place is not None:
            self._place.leave()


class ClientProtocol(PlacedProtocol):
    """The protocol of clients, with the peer in the scope of its requests.

    connected every client's connections, for as long as its certificate holds
    clients   places of all clients, held by their names. Idle connections give way to others.
    too_many  places of those who are told that they have too many connections
    """

    def __init__(self, *, connected: Clients, clients: Places, too_many: Places, **patient: Any):
        super().__init__(**patient)
        self._connected, self._clients, self._too_many = connected, clients, too_many
        self._unproved: AuthError | None = None
        self.peer: Peer | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._meet()

    def _meet(self) -> None:
        """Learns from the handshake who the other end is."""
        connection = self.transport.get_extra_info("ssl_object")
        certificate = connection.getpeercert() if connection is not None else None
        try:
            peer = Peer(role_of(certificate), name_of(certificate), certificate, connection.context)
        except AuthError as error:
            self._unproved = error
            self.transport.abort()
            return
        refused = self._enter(peer)
        self.app = identified(self.app, peer, self._connected) if refused is None else refused

    async def proved(self) -> None:
        if self._unproved is not None:
            raise self._unproved

    def _enter(self, peer: Peer) -> App | None:
        """Takes a place for a client. Where there is none for it: what answers its request instead."""
        self._leave()
        self.peer, refused = peer, None
        self._place = self._clients.enter(peer.name, self.transport.abort)
        if self._place is None:
            refused = _refusing(self._clients, peer.name)
            self._place = self._too_many.enter(peer.name, self.transport.abort)
        if self._place is None:
            self.transport.abort()
        else:
            self._connected.came(self)
        return refused

    def _leave(self) -> None:
        self._connected.left(self)
        super()._leave()

    def idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete


class _Deadline:
    """Calls `late` after `seconds`, unless it is stopped. Starting it again while it runs does not prolong it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, late: Callable[[], None]):
        self._loop, self._seconds, self._late = loop, seconds, late
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._late)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def identified(app: Any, peer: Peer, clients: Clients) -> App:
    """An application whose requests come from this peer, while its certificate holds."""
    async def asked(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if problem := peer.objection():
            log.warning("connection refused", extra={"fields": {"client": peer.name, "problem": problem}})
            answer = JSONResponse({"error": {"kind": "certificate", "message": problem, "request": None}}, 403)
            await answer(scope, receive, send)
            return
        clients.asked(peer)
        await app({**scope, PEER: peer}, receive, send)

    return asked


def _refusing(clients: Places, name: str) -> App:
    """Answers that the client, or all clients, have too many connections."""
    if clients.held(name) >= clients.each:
        status, message = 429, (f"a client may have {clients.each} connections here, and all of yours are busy; wait "
                                f"for an answer")
    else:
        status, message = 503, "clients have too many connections here, and all are busy; try again later"
    return JSONResponse({"error": {"kind": "too many connections", "message": message, "request": None}}, status,
                        {"Connection": "close", "Retry-After": "2"})


class DoorServer(Server):
    """uvicorn's server, whose connections come through a door. It handles no signals, since two of them run in one
    process.

    made  makes the protocol of a connection
    """

    def __init__(self, config: Config, made: Callable[..., PatientProtocol], sock: Socket, strangers: Places,
                 refused: Report, context: Context | None = None):
        super().__init__(config)
        self._made, self._sock, self._strangers, self._told, self._context = made, sock, strangers, refused, context

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[Socket] | None = None) -> None:
        """Opens the door. Without a `context`, nobody can prove who they are: all stay strangers for as long as they
        are here."""
        await self.lifespan.startup()
        meet, opens = (self._plain, opens_http) if self._context is None else (self._secured(self._context), opens_tls)
        self.servers = [Door(self._sock, self._strangers, opens, meet, self._told)]  # type: ignore[list-item]
        self.started = True

    async def shutdown(self, sockets: list[Socket] | None = None) -> None:
        await super().shutdown([self._sock])

    def _protocol(self) -> PatientProtocol:
        return self._made(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def _secured(self, context: Context) -> Meet:
        async def meet(connection: Socket, where: str) -> None:
            protocol = self._protocol()
            try:
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: protocol, connection, ssl=context, ssl_handshake_timeout=HANDSHAKE,
                    ssl_shutdown_timeout=GOODBYE)
            except TLSError as error:
                raise AuthError(f"handshake failed: {reason(error)}") from error
            await protocol.proved()

        return meet

    async def _plain(self, connection: Socket, where: str) -> None:
        protocol = self._protocol()
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connection)
        try:
            await protocol.gone
        finally:
            transport.abort()
