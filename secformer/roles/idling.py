"""Connections on which a server waits for its peers' next asks. They are bounded in number and in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from secformer.mpc.errors import PeerEnded
from secformer.mpc.net.tls import TLSChannel

LOOK = 1.0  # seconds between looks at a certificate


class Idle:
    """The connections of one server: those that wait, and how many are served. Thread-safe.

    each     connections of one role that may wait; the one that has waited longest gives way to a new one
    seconds  how long each may wait
    """

    def __init__(self, each: int, seconds: float):
        self._each, self._seconds = each, seconds
        self._waiting: dict[TLSChannel, None] = {}  # in the order in which they began to wait
        self._served = 0
        self._closed = False
        self._lock = threading.Condition()

    @contextmanager
    def served(self, channel: TLSChannel) -> Iterator[None]:
        """What the peer has asked is served meanwhile. Raises PeerEnded once the server has closed: then the peer asks
        again, elsewhere. If the server closes meanwhile, all that was sent leaves first."""
        with self._lock:
            if self._closed:
                raise PeerEnded("the server has closed")
            self._served += 1
        try:
            yield
            if self._closed:
                channel.close()  # returns once all was sent, or after a while
        finally:
            with self._lock:
                self._served -= 1
                self._lock.notify_all()

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

    def close(self, patience: float = 0.0) -> None:
        """Ends all waiting, and lets nobody wait any more. Gives those who are served so many seconds to end."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._lock.wait_for(lambda: not self._served, timeout=patience)
