"""Channels over byte streams such as sockets. `UnsafePlainTCP`, for trusted networks and tests, neither encrypts nor
authenticates; `tls` has the channel that does."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol, Self

import numpy as np

from secformer.mpc.errors import Desync, PeerEnded, PeerLost, SettingsError
from secformer.mpc.net.channel import DEADLINE, Channel
from secformer.mpc.net.wire import ABORT, DATA, HEADER_BYTES, MAX_ABORT, NOTE, Tag, pack_header, unpack_header
from secformer.mpc.strict_json import read_own

Socket = socket.socket

AHEAD = 1 << 26    # bytes, or one message, that may wait for a slow peer
SMALL = 1 << 14    # bytes of a message that any connection's buffers hold
LINGER = 5.0       # seconds to wait, when closing, for the peer to read what was sent
QUIET = 30         # seconds without a byte after which the system sends a sign of life
MAX_NOTE = 1 << 20 # bytes of a note, unless the reader allows more


class Stream(Protocol):
    """What a channel needs of a connection; a socket has it. One thread sends while another receives."""

    def sendall(self, data: Any, /) -> None: ...
    def recv_into(self, buffer: Any, /) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: Any) -> None: ...


class StreamChannel(Channel):
    """One end of a connection. A writer thread sends, so that two peers may send large messages at once.

    Beside messages, whose size both ends know, a channel carries notes: small JSON objects by which roles agree on what
    to do next.
    """

    def __init__(self, stream: Stream, peer: str, deadline: float = DEADLINE):
        super().__init__(peer, deadline)
        stream.settimeout(deadline)
        self._stream = stream
        self._queue: deque[tuple[bytes, np.ndarray]] = deque()
        self._held = 0
        self._sending, self._reading = threading.Lock(), threading.Lock()
        self._changed = threading.Condition()
        self._broken: str | None = None
        self._closing = False
        self._closed = "was closed by this side"  # what this side's threads are told then
        self._drained = False
        self.ended = threading.Event()  # set once this side has closed and written all that it had to
        self.gone = threading.Event()   # set once the connection itself is closed, at most LINGER seconds later
        threading.Thread(target=self._write, name=f"to {peer}", daemon=True).start()

    def send(self, tag: Tag, payload: Any) -> None:
        payload = np.ascontiguousarray(payload if isinstance(payload, np.ndarray) else payload.get())
        self._put(tag, pack_header(tag, payload.size), payload)

    def tell(self, note: Mapping[str, Any]) -> None:
        """Sends a note: JSON values by name."""
        text = np.frombuffer(json.dumps(note).encode(), dtype=np.uint8)
        tag = Tag(0, "note", 8, text.size)
        self._put(tag, pack_header(tag, text.size, NOTE), text)

    def _put(self, tag: Tag, header: bytes, payload: np.ndarray) -> None:
        def room() -> bool:
            return bool(not self._held or self._held + payload.size <= AHEAD or self._broken or self._closing)

        if payload.size <= SMALL and not self._held and not self._broken and not self._closing:
            self._send_now(header + payload.tobytes())
            return
        with self._changed:
            if not self._changed.wait_for(room, timeout=self.deadline):
                raise self._lost(tag, f"took nothing for {self.deadline:g} s")
            if self._broken or self._closing:
                raise self._lost(tag, self._broken or self._closed)
            self._queue.append((header, payload))
            self._held += payload.size
            self._changed.notify_all()

    def _send_now(self, message: bytes) -> None:
        """A small message, while nothing waits: it fits the sockets' buffers, so this does not wait for the peer, and
        another thread need not wake up for it."""
        try:
            with self._sending:
                self._stream.sendall(message)
        except OSError as error:
            self._broken = f"broke the connection ({error.strerror or error})"

    def receive(self, tag: Tag, nbytes: int) -> Any:
        kind, came, size = self._header(tag)
        if kind != DATA:
            came = Tag(0, "a note", 8, size)
        self._compare(tag, nbytes, came, size)
        payload = self.buffer(size)
        self._fill(payload, tag)
        return payload

    def hear(self, *, most: int = MAX_NOTE) -> dict[str, Any]:
        """The next message, which must be a note of at most `most` bytes. Raises Desync or PeerLost."""
        tag = Tag(0, "note", 8, 0)
        kind, came, size = self._header(tag)
        if kind != NOTE or size > most:
            story = f"this side expects a note of at most {most} bytes, {self.peer} sent {came} ({size} bytes)"
            self.abort(story)
            raise Desync(story)
        text = np.empty(size, dtype=np.uint8)
        self._fill(text, tag)
        try:
            note = read_own(text.tobytes())
        except ValueError:
            note = None
        if not isinstance(note, dict):
            story = f"{self.peer} sent a note that is not a JSON object; do both sides run the same version?"
            self.abort(story)
            raise Desync(story)
        return note

    def _header(self, tag: Tag) -> tuple[int, Tag, int]:
        if self._closing:
            raise self._lost(tag, self._closed)
        header = np.empty(HEADER_BYTES, dtype=np.uint8)
        self._fill(header, tag)
        kind, came, size = unpack_header(header.tobytes())
        if kind == ABORT:
            reason = np.empty(min(size, MAX_ABORT), dtype=np.uint8)
            self._fill(reason, tag)
            raise Desync(f"{self.peer} gave up: {reason.tobytes().decode('utf-8', 'replace')}")
        return kind, came, size

    def abort(self, reason: str) -> None:
        text = np.frombuffer(reason.encode("utf-8", "replace")[:MAX_ABORT], dtype=np.uint8)
        self._finish((pack_header(Tag(0, "abort", 8, text.size), text.size, ABORT), text), reason)

    def close(self) -> None:
        self._finish(None)

    def _finish(self, last: tuple[bytes, np.ndarray] | None, reason: str = "") -> None:
        with self._changed:
            if self._closing:
                return
            if reason:
                self._closed += f" ({reason})"
            if last is not None:
                self._queue.append(last)
                self._held += last[1].size
            self._closing = True
            self._changed.notify_all()
        self.ended.wait(timeout=min(self.deadline, LINGER))

    def _write(self) -> None:
        while (message := self._next()) is not None:
            header, payload = message
            try:
                with self._sending:
                    if not self._broken:
                        self._stream.sendall(header)
                        if payload.size:
                            self._stream.sendall(payload.data)
            except OSError as error:
                self._broken = f"broke the connection ({error.strerror or error})"
            with self._changed:
                self._held -= payload.size
                self._changed.notify_all()
        self.ended.set()
        try:
            self._leave()
        finally:
            self.gone.set()

    def _next(self) -> tuple[bytes, np.ndarray] | None:
        """The next message to write; None once the channel is closing and all are written."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            return self._queue.popleft() if self._queue else None

    def _leave(self) -> None:
        """Closes once the peer has read everything: unread input at the close would make the kernel drop what the
        peer has not read yet. A thread that still receives goes first: what it waits for must not be taken from it."""
        with self._stream:
            try:
                with self._sending:
                    self._stream.shutdown(socket.SHUT_WR)
                with self._reading:
                    self._drained, end = True, time.monotonic() + LINGER  # in total: a peer may drip
                    while (left := end - time.monotonic()) > 0:
                        self._stream.settimeout(left)
                        if not self._stream.recv(1 << 16):
                            break
            except OSError:
                pass  # the peer left first, or never reads again

    def _fill(self, buffer: np.ndarray, tag: Tag) -> None:
        view = memoryview(buffer)  # type: ignore[arg-type]
        while view:
            try:
                with self._reading:
                    count = None if self._drained else self._stream.recv_into(view)
            except TimeoutError:
                raise self._lost(tag, f"sent nothing for {self.deadline:g} s") from None
            except OSError as error:
                raise self._lost(tag, f"broke the connection ({error.strerror or error})") from None
            if count is None:
                raise self._lost(tag, self._closed)
            if not count:
                raise PeerEnded(str(self._lost(tag, "closed the connection")))
            view = view[count:]


class UnsafePlainTCP(StreamChannel):
    """One end of a TCP connection that nothing protects."""

    def __init__(self, connection: socket.socket, peer: str, deadline: float = DEADLINE):
        prompt(connection)
        super().__init__(connection, peer, deadline)


def prompt(connection: socket.socket) -> socket.socket:
    """Small messages must not wait for company (no Nagle delay), and a firewall must not forget a connection that is
    quiet between requests."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # elsewhere the system's own interval counts
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, QUIET)
    return connection


def limit_silence(connection: socket.socket, seconds: float) -> None:
    """Lets a connection fail once the peer's system has not confirmed for so long what was sent, or is not there any
    more. Not every system can do that; elsewhere the deadline of whoever reads counts."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(1e3 * seconds)))


def split_address(text: str) -> tuple[str, int]:
    """"host:port" or "[ipv6]:port" as (host, port). Raises SettingsError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"an address is host:port with a port of 0 to 65535, got {text!r}")
    return host, int(port)


def listening(address: tuple[str, int]) -> socket.socket:
    """A socket that listens. Raises SettingsError where the address is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        return socket.create_server(address, backlog=256, family=family)
    except OSError as error:
        raise SettingsError(f"cannot listen on {address[0]}:{address[1]} ({error.strerror or error}); does another "
                            f"process use the port?") from error


def reset(connection: socket.socket) -> None:
    """Closes a connection at once: the system keeps nothing of it, and the peer learns that it was cut."""
    reset_when_closed(connection)
    connection.close()


def reset_when_closed(connection: socket.socket) -> None:
    """Makes whoever closes the connection do as `reset` does."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


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
    return UnsafePlainTCP(connect_socket(host, port, peer, deadline=deadline), peer, deadline)


def connect_socket(host: str, port: int, peer: str, *, deadline: float) -> socket.socket:
    """A TCP connection, tried again until the deadline. Raises PeerLost."""
    end = time.monotonic() + deadline
    while True:
        try:
            return socket.create_connection((host, port), timeout=max(1e-3, end - time.monotonic()))
        except OSError as error:
            if time.monotonic() > end:
                raise PeerLost(
                    f"{peer} at {host}:{port} does not answer ({error}); start it, or check the address"
                ) from None
            time.sleep(0.05)
