"""Connections of clients to a party: whom a connection belongs to, and how long a request may take to arrive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from secformer.mpc.errors import AuthError
from secformer.mpc.net.tls import HANDSHAKE, name_of, role_of

App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]
PEER = "secformer.peer"  # a request's scope holds (role, name) under this key

log = logging.getLogger(__name__)


class PatientLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, which gives clients `HANDSHAKE` seconds for the TLS handshake; uvicorn would give a minute."""

    async def create_server(self, *args: Any, **settings: Any) -> asyncio.Server:
        if settings.get("ssl") is not None:
            settings.setdefault("ssl_handshake_timeout", HANDSHAKE)
        return await super().create_server(*args, **settings)


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


def client_protocol(patience: float) -> type[H11Protocol]:
    """`OrderlyProtocol`, with the role that the peer has proven in the scope of its requests. If a request has not
    arrived completely within `patience` seconds, the connection is dropped."""

    class ClientProtocol(OrderlyProtocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            connection = transport.get_extra_info("ssl_object")
            certificate = connection.getpeercert() if connection is not None else None
            try:
                peer = role_of(certificate), name_of(certificate)
            except AuthError as error:
                log.warning("connection refused", extra={"fields": {"from": str(self.client), "problem": str(error)}})
                transport.abort()
                return
            self.app = _with_peer(self.app, peer)
            self._arm()

        def data_received(self, data: bytes) -> None:
            self._arm()
            super().data_received(data)
            if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):  # it is complete, or refused
                self._disarm()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
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


def _with_peer(app: Any, peer: tuple[str, str]) -> App:
    async def identified(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        await app({**scope, PEER: peer}, receive, send)

    return identified
