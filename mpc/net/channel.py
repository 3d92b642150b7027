"""Channels: ordered, checked messages between two peers. Here the interface and the pair inside one process."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from secformer.mpc.errors import Desync, PeerLost
from secformer.mpc.net.wire import Tag

DEADLINE = 60.0
Buffer = Callable[[int], np.ndarray]  # makes memory of so many bytes


def _bytes(size: int) -> np.ndarray:
    return np.empty(size, dtype=np.uint8)


class Channel(ABC):
    """One end of a connection. Both ends state what each message is; a difference is a Desync on both sides."""

    def __init__(self, peer: str, deadline: float = DEADLINE):
        self.peer, self.deadline = peer, deadline
        self.buffer: Buffer = _bytes  # makes what is received into; a GPU party has its own

    @abstractmethod
    def send(self, tag: Tag, payload: Any) -> None:
        """Queues a message (uint8 array); blocks only while the peer is far behind."""

    @abstractmethod
    def receive(self, tag: Tag, nbytes: int) -> Any:
        """The next message, which must be `tag` with `nbytes` bytes. Raises Desync, or PeerLost after the deadline."""

    @abstractmethod
    def abort(self, reason: str) -> None:
        """Tells the peer that this side gives up, and why; then closes."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection in order; messages already sent still arrive."""

    def _compare(self, expected: Tag, nbytes: int, came: Tag, size: int) -> None:
        if came != expected or size != nbytes:
            story = (
                f"this side expects {expected} ({nbytes} bytes), {self.peer} sent {came} ({size} bytes); "
                f"run the same program, recipe, profile and shapes on both sides"
            )
            self.abort(story)
            raise Desync(story)

    def _lost(self, tag: Tag, why: str) -> PeerLost:
        return PeerLost(f"{self.peer} {why} while this side waited for {tag}; see that side's error, then start again")


class _Pipe:
    """One direction: a queue bounded by bytes. None in it says that it has ended: what was sent before still comes."""

    def __init__(self, capacity: int):
        self.capacity, self.held = capacity, 0
        self.items: SimpleQueue[tuple[Tag, Any] | None] = SimpleQueue()
        self.room = threading.Condition()  # also guards what is held
        self.crowded = 0                   # senders that wait for room
        self.closed = False
        self.reason: str | None = None

    def end(self, reason: str | None = None) -> None:
        with self.room:
            self.closed = True
            self.reason = self.reason or reason
            self.room.notify_all()
        self.items.put(None)


class LocalChannel(Channel):
    """One end of a pair of queues in this process; arrays pass by reference and must not be written afterwards."""

    def __init__(self, outgoing: _Pipe, incoming: _Pipe, peer: str, deadline: float):
        super().__init__(peer, deadline)
        self._out, self._in = outgoing, incoming

    def send(self, tag: Tag, payload: Any) -> None:
        pipe, size = self._out, payload.size
        with pipe.room:
            if pipe.held and pipe.held + size > pipe.capacity and not pipe.closed:
                self._wait(pipe, tag, size)
            if pipe.closed:
                raise self._ended(pipe, tag)
            pipe.held += size
            pipe.items.put((tag, payload))

    def _wait(self, pipe: _Pipe, tag: Tag, size: int) -> None:
        """Until there is room, or the pipe has ended."""
        pipe.crowded += 1
        try:
            if not pipe.room.wait_for(lambda: not pipe.held or pipe.held + size <= pipe.capacity or pipe.closed,
                                      self.deadline):
                raise self._lost(tag, f"took nothing for {self.deadline:g} s")
        finally:
            pipe.crowded -= 1

    def receive(self, tag: Tag, nbytes: int) -> Any:
        pipe = self._in
        try:
            item = pipe.items.get(timeout=self.deadline)
        except Empty:
            raise self._lost(tag, f"sent nothing for {self.deadline:g} s") from None
        if item is None:
            pipe.items.put(None)  # whoever asks again is told again
            raise self._ended(pipe, tag)
        came, payload = item
        with pipe.room:
            pipe.held -= payload.size
            if pipe.crowded:
                pipe.room.notify_all()
        self._compare(tag, nbytes, came, payload.size)
        return payload

    def _ended(self, pipe: _Pipe, tag: Tag) -> PeerLost | Desync:
        return Desync(f"{self.peer} gave up: {pipe.reason}") if pipe.reason else self._lost(tag, "closed")

    def abort(self, reason: str) -> None:
        self._out.end(reason)
        self._in.end(reason)

    def close(self) -> None:
        self._out.end()


def local_pair(a: str, b: str, *, capacity: int = 1 << 28, deadline: float = DEADLINE) -> tuple[Channel, Channel]:
    """Two connected ends in one process: the first is held by `a`, the second by `b`. `capacity` bounds the bytes
    that wait in each direction."""
    forth, back = _Pipe(capacity), _Pipe(capacity)
    return LocalChannel(forth, back, b, deadline), LocalChannel(back, forth, a, deadline)
