"""Connections on which a server waits for its peers' next asks. They are bounded in number and in time."""

from __future__ import annotations

import threading
import time

from secformer.mpc.net.tls import TLSChannel

LOOK = 1.0  # seconds between looks at a certificate


class Idle:
    """The waiting connections of one server. Thread-safe.

    each     connections of one role that may wait; the one that has waited longest gives way to a new one
    seconds  how long each may wait
    """

    def __init__(self, each: int, seconds: float):
        self._each, self._seconds = each, seconds
        self._waiting: dict[TLSChannel, None] = {}  # in the order in which they began to wait
        self._closed = False
        self._lock = threading.Lock()

    def wait(self, channel: TLSChannel) -> bool:
        """Whether the peer sends something, or hangs up. False where it has waited for too long, gives way to others,
        or the server has closed. Raises AuthError where the peer's certificate does not hold any more."""
        end = time.monotonic() + self._seconds
        with self._lock:
            if self._closed:
                return False
            self._waiting[channel] = None
            mine = [other for other in self._waiting if other.role == channel.role]
            if len(mine) > self._each:
                del self._waiting[mine[0]]
        try:
            while not (came := channel.comes(LOOK)) and channel in self._waiting and time.monotonic() < end:
                channel.check()
            return came and not self._closed
        finally:
            with self._lock:
                self._waiting.pop(channel, None)

    def close(self) -> None:
        """Ends all waiting, and lets nobody wait any more."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
