"""Live runs go before stored ones: whoever makes material ahead gives way while a request waits for its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from secformer.mpc.dealer.names import STORED
from secformer.mpc.errors import Desync
from secformer.mpc.net.channel import Channel
from secformer.mpc.net.wire import Tag

GIVE_WAY = 0.2  # seconds for which one message of a stored run may wait, so that a store fills under steady load, too


class Precedence:
    """Counts the runs of requests that are being dealt, or computed. Thread-safe."""

    def __init__(self) -> None:
        self._live = 0
        self._changed = threading.Condition()

    def begin(self) -> Callable[[], None]:
        """A run begins. What is returned says, once, that it is over: that its corrections have come, or never will."""
        over = threading.Lock()  # held from the first call on

        def end() -> None:
            if over.acquire(blocking=False):
                self._count(-1)

        self._count(1)
        return end

    def give_way(self, patience: float = GIVE_WAY) -> None:
        """Waits while there are runs that are not over, but at most `patience` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._live, timeout=patience)

    def _count(self, by: int) -> None:
        with self._changed:
            self._live += by
            self._changed.notify_all()


class Streams:
    """What a dealer serves at the same time, of all parties and models. Live asks have `most` places. Asks for runs
    that are stored have half as many places of their own, and give way before each message.

    patience  seconds for which an ask waits for a place
    """

    def __init__(self, most: int, patience: float):
        self._live, self._stored = threading.BoundedSemaphore(most), threading.BoundedSemaphore(max(1, most // 2))
        self._patience, self._precedence = patience, Precedence()

    @contextmanager
    def place(self, space: str, channel: Channel) -> Iterator[Channel]:
        """A place for an ask, and the channel for its corrections. Raises Desync where there is none in time."""
        places = self._stored if space == STORED else self._live
        if not places.acquire(timeout=self._patience):
            raise Desync("the dealer already serves as many requests as it may; try again later")
        try:
            if space == STORED:
                yield _GivingWay(channel, self._precedence)
                return
            end = self._precedence.begin()
            try:
                yield channel
            finally:
                end()
        finally:
            places.release()


class _GivingWay(Channel):
    """Sends what it is given on another channel, live runs first."""

    def __init__(self, channel: Channel, precedence: Precedence):
        super().__init__(channel.peer, channel.deadline)
        self._channel, self._precedence = channel, precedence

    def send(self, tag: Tag, payload: Any) -> None:
        self._precedence.give_way()
        self._channel.send(tag, payload)

    def receive(self, tag: Tag, nbytes: int) -> Any:
        return self._channel.receive(tag, nbytes)

    def abort(self, reason: str) -> None:
        self._channel.abort(reason)

    def close(self) -> None:
        self._channel.close()
