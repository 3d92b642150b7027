"""A relay that makes loopback connections as slow as a network.

In each direction, bytes are delayed by the latency, and the bytes of all connections together pass at the bandwidth at
most, in the order in which they come. The relay does not read them.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from typing import Self

from secformer.models.run.networks import Network

PIECE = 1 << 16
FULL = 1 << 24  # bytes that may be under way in one direction before the sender must wait, as in a network's buffers


class Relay:
    """Listens on a loopback port, and passes every connection on to another port, slowed down."""

    def __init__(self, port: int, target: int, network: Network):
        self._server = socket.create_server(("127.0.0.1", port))
        self._target, self._lines = target, (_Line(network), _Line(network))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            for connection in (near, far):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [near, far]
            for line, source, sink in zip(self._lines, (near, far), (far, near), strict=True):
                _Direction(source, sink, line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for connection in self._open:
            connection.close()


class _Line:
    """One direction of the network, which all connections share."""

    def __init__(self, network: Network):
        self._network, self._lock = network, threading.Lock()
        self._free = 0.0  # the time at which the line has sent all earlier bytes

    def arrival(self, size: int) -> float:
        """The time at which bytes arrive that are sent now."""
        with self._lock:
            self._free = max(self._free, time.monotonic()) + size * 8 / self._network.bandwidth
            return self._free + self._network.latency


class _Direction:
    """One direction of one connection: bytes that were read wait until they would have arrived."""

    def __init__(self, source: socket.socket, sink: socket.socket, line: _Line):
        self._source, self._sink, self._line = source, sink, line
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._write, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                data = self._source.recv(PIECE)
            except OSError:
                data = b""
            arrives = self._line.arrival(len(data))
            with self._changed:
                self._changed.wait_for(lambda: self._size < FULL)
                self._under_way.append((arrives, data))
                self._size += len(data)
                self._changed.notify_all()
            if not data:
                return

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._under_way)
                due, data = self._under_way.popleft()
            if (wait := due - time.monotonic()) > 0:
                time.sleep(wait)
            try:
                if not data:
                    self._sink.shutdown(socket.SHUT_WR)
                    return
                self._sink.sendall(data)
            except OSError:
                return
            finally:
                with self._changed:
                    self._size -= len(data)
                    self._changed.notify_all()
