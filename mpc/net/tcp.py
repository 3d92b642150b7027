"""Channels over plain TCP sockets. For trusted networks and tests: `Unsafe` in their names says that nothing here
encrypts or authenticates."""

from __future__ import annotations

import queue
import socket
import threading
import time
from typing import Any

import numpy as np

from secformer.mpc.errors import Desync, PeerLost
from secformer.mpc.net.channel import DEADLINE, Channel
from secformer.mpc.net.wire import ABORT, HEADER_BYTES, MAX_ABORT, Tag, pack_header, unpack_header

QUEUED = 64   # messages that may wait for a slow peer
LINGER = 5.0  # seconds to wait, when closing, for the peer to read what was sent


class UnsafePlainTCP(Channel):
    """One end of a TCP connection. A writer thread sends, so that two peers may send large messages at once."""

    def __init__(self, connection: socket.socket, peer: str, deadline: float = DEADLINE):
        super().__init__(peer, deadline)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(deadline)
        self._socket = connection
        self._queue: queue.Queue[tuple[bytes, Any] | None] = queue.Queue(QUEUED)
        self._broken: str | None = None
        self._closing = False
        self._flushed = threading.Event()
        threading.Thread(target=self._write, name=f"to {peer}", daemon=True).start()

    def send(self, tag: Tag, payload: Any) -> None:
        payload = np.ascontiguousarray(payload if isinstance(payload, np.ndarray) else payload.get())
        try:
            if self._broken or self._closing:
                raise self._lost(tag, self._broken or "was closed by this side")
            self._queue.put((pack_header(tag, payload.size), payload), timeout=self.deadline)
        except queue.Full:
            raise self._lost(tag, f"took nothing for {self.deadline:g} s") from None

    def receive(self, tag: Tag, nbytes: int) -> Any:
        if self._closing:
            raise self._lost(tag, "was closed by this side")
        header = np.empty(HEADER_BYTES, dtype=np.uint8)
        self._fill(header, tag)
        kind, came, size = unpack_header(header.tobytes())
        if kind == ABORT:
            reason = np.empty(min(size, MAX_ABORT), dtype=np.uint8)
            self._fill(reason, tag)
            raise Desync(f"{self.peer} gave up: {reason.tobytes().decode('utf-8', 'replace')}")
        self._compare(tag, nbytes, came, size)
        payload = np.empty(size, dtype=np.uint8)
        self._fill(payload, tag)
        return payload

    def abort(self, reason: str) -> None:
        text = np.frombuffer(reason.encode()[:MAX_ABORT], dtype=np.uint8)
        self._finish((pack_header(Tag(0, "abort", 8, text.size), text.size, ABORT), text))

    def close(self) -> None:
        self._finish(None)

    def _finish(self, last: tuple[bytes, Any] | None) -> None:
        if self._closing:
            return
        self._closing = True
        try:
            if last is not None:
                self._queue.put(last, timeout=1.0)
            self._queue.put(None, timeout=1.0)
        except queue.Full:
            self._broken = "did not read"
        self._flushed.wait(timeout=min(self.deadline, LINGER))

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._broken:
                continue
            header, payload = item
            try:
                self._socket.sendall(header)
                if payload.size:
                    self._socket.sendall(memoryview(payload))
            except OSError as error:
                self._broken = f"broke the connection ({error.strerror or error})"
        self._flushed.set()
        self._leave()

    def _leave(self) -> None:
        """Closes once the peer has read everything: unread input at the close would make the kernel drop what the
        peer has not read yet."""
        with self._socket:
            try:
                self._socket.shutdown(socket.SHUT_WR)
                self._socket.settimeout(LINGER)
                while self._socket.recv(1 << 16):
                    pass
            except OSError:
                pass  # the peer left first, or never reads again

    def _fill(self, buffer: np.ndarray, tag: Tag) -> None:
        view = memoryview(buffer)  # type: ignore[arg-type]
        while view:
            try:
                count = self._socket.recv_into(view)
            except TimeoutError:
                raise self._lost(tag, f"sent nothing for {self.deadline:g} s") from None
            except OSError as error:
                raise self._lost(tag, f"broke the connection ({error.strerror or error})") from None
            if not count:
                raise self._lost(tag, "closed the connection")
            view = view[count:]


def unsafe_listen(host: str, port: int, peer: str, *, deadline: float = DEADLINE) -> tuple[int, Any]:
    """Listens; returns the port and a function that waits for one connection and gives its channel."""
    server = socket.create_server((host, port))
    server.settimeout(deadline)

    def accept() -> UnsafePlainTCP:
        with server:
            try:
                connection, _ = server.accept()
            except TimeoutError:
                raise PeerLost(
                    f"{peer} did not connect within {deadline:g} s; start it, or check the address"
                ) from None
        return UnsafePlainTCP(connection, peer, deadline)

    return server.getsockname()[1], accept


def unsafe_connect(host: str, port: int, peer: str, *, deadline: float = DEADLINE) -> UnsafePlainTCP:
    """Connects, trying again until the deadline."""
    end = time.monotonic() + deadline
    while True:
        try:
            return UnsafePlainTCP(socket.create_connection((host, port), timeout=deadline), peer, deadline)
        except OSError as error:
            if time.monotonic() > end:
                raise PeerLost(
                    f"{peer} at {host}:{port} does not answer ({error}); start it, or check the address"
                ) from None
            time.sleep(0.05)


