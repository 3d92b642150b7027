"""A server of channels: roles connect, prove who they are at a door, and are each served in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextlib import suppress

from secformer.mpc.errors import AuthError, SecformerError
from secformer.mpc.net.channel import DEADLINE
from secformer.mpc.net.door import FAILED, NO_ROOM, UNPROVED, Door, Refused, Report, opens_tls
from secformer.mpc.net.places import Places
from secformer.mpc.net.tcp import listening, reset
from secformer.mpc.net.tls import PIECE, REFUSED, WELCOME, Context, Handshake, TLSChannel, TLSStream, role_of

STRANGERS = 64  # connections that may be proving themselves at once
PEERS = 32      # connections of one role that are served at once
TURNED_AWAY = 8 # connections of other roles that are told at once that they have no business here

Serve = Callable[[TLSChannel], None]


class Listener:
    """Accepts roles on an address and serves each in a thread of its own. Whoever cannot prove an allowed role in time
    is hung up on and reported; that disturbs nobody else. Places of strangers, and of each allowed role, are apart.

    strangers  connections that may be proving themselves at once
    peers      connections of one role that are served at once; further ones are hung up on, and may try again
    """

    def __init__(self, address: tuple[str, int], allowed: Collection[str], context: Context, serve: Serve,
                 report: Report, *, deadline: float = DEADLINE, strangers: int = STRANGERS, peers: int = PEERS):
        self._socket = listening(address)
        self.port: int = self._socket.getsockname()[1]
        self._allowed, self._context, self._serve, self._report = allowed, context, serve, report
        self._deadline, self._strangers = deadline, Places(strangers)
        self._rooms = {role: threading.BoundedSemaphore(peers) for role in allowed}
        self._turned_away = threading.BoundedSemaphore(TURNED_AWAY)
        self._loop = asyncio.SelectorEventLoop()
        opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name=f"listening on {self.port}", daemon=True)
        self._thread.start()
        opened.result()

    def _run(self, opened: Future[None]) -> None:
        async def listen() -> None:
            self._ended = asyncio.Event()
            door = Door(self._socket, self._strangers, opens_tls, self._meet, self._report)
            opened.set_result(None)
            await self._ended.wait()
            door.close()

        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(listen())

    async def _meet(self, connection: socket.socket, where: str) -> None:
        hands, data = Handshake(self._context, server=True), b""
        done = False
        while not done:
            try:
                done = hands.complete(data)
            finally:
                await self._loop.sock_sendall(connection, hands.outgoing.read())  # where it raises: the alert
            if not done:
                data = await self._loop.sock_recv(connection, PIECE)
                if not data:
                    raise ConnectionError("the connection was closed during the handshake")
        room = self._rooms.get(role_of(hands.tls.getpeercert()), self._turned_away)
        if not room.acquire(blocking=False):
            reset(connection)
            self._report(Refused(where, NO_ROOM, "too many connections of this role at once"))
            return
        threading.Thread(target=self._welcome, args=(connection, hands, where, room), name=f"from {where}",
                         daemon=True).start()

    def _welcome(self, connection: socket.socket, hands: Handshake, where: str,
                 room: threading.BoundedSemaphore) -> None:
        try:
            try:
                stream = TLSStream(connection, hands)
                stream.settimeout(self._deadline)
                channel = TLSChannel(stream, self._deadline)
            except BaseException:
                connection.close()
                raise
            try:
                if channel.role not in self._allowed:
                    stream.sendall(REFUSED)
                    raise AuthError(f"{channel.role} ({channel.name}) is not allowed to connect here; only "
                                    f"{' or '.join(self._allowed)} may")
                stream.sendall(WELCOME)
                self._serve(channel)
            except SecformerError as error:
                channel.abort(str(error))
                raise
            finally:
                channel.close()
                channel.gone.wait()  # the descriptor is in use until then
        except Exception as error:  # whatever one connection does wrong, the others go on
            why = UNPROVED if isinstance(error, AuthError) else FAILED
            self._report(Refused(where, why, f"{type(error).__name__}: {error}"))
        finally:
            room.release()

    def close(self) -> None:
        """Accepts nobody any more. Those who are being served go on."""
        with suppress(RuntimeError):  # closed before
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._socket.close()
