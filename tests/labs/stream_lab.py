"""A model of streams and of memory pools that belong to streams: as much of CuPy as `CupyBackend` uses, and as unkind
as the real thing may be. Work runs when something waits for it and no earlier; memory that is let go of is given out
again at once, to its own stream, whoever may still read it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Self

import numpy as np


class Event:
    def __init__(self, cuda: Cuda):
        self._cuda = cuda
        self._stream, self._position = cuda.current, 0

    def record(self) -> None:
        self._stream = self._cuda.current
        self._position = self._stream.queued

    @property
    def done(self) -> bool:
        return self._stream.finished >= self._position

    def synchronize(self) -> None:
        self._stream.run(self._position)


class Stream:
    def __init__(self, cuda: Cuda):
        self._cuda, self._work = cuda, deque[Callable[[], None]]()
        self.queued = self.finished = 0
        self.free: dict[int, list[np.ndarray]] = {}

    def push(self, work: Callable[[], None]) -> None:
        self._work.append(work)
        self.queued += 1

    def run(self, until: int) -> None:
        while self.finished < until:
            self._work.popleft()()
            self.finished += 1

    def wait_event(self, event: Event) -> None:
        self.push(event.synchronize)

    def synchronize(self) -> None:
        self.run(self.queued)

    def __enter__(self) -> Self:
        self._before, self._cuda.current = self._cuda.current, self
        return self

    def __exit__(self, *error: Any) -> None:
        self._cuda.current = self._before


class Array:
    """Device memory of one stream: bytes."""

    def __init__(self, cuda: Cuda, size: int):
        self._cuda, self.size = cuda, size
        self._owner = cuda.current
        given = self._owner.free.setdefault(size, [])
        self.memory = given.pop() if given else np.zeros(size, dtype=np.uint8)

    def __del__(self) -> None:
        self._owner.free[self.size].append(self.memory)

    @property
    def data(self) -> Array:
        return self

    def fill(self, value: int) -> None:
        memory = self.memory
        self._cuda.current.push(lambda: memory.fill(value))

    def copy_from_device_async(self, source: Array, size: int, stream: Stream) -> None:
        mine, theirs = self.memory, source.memory
        stream.push(lambda: np.copyto(mine[:size], theirs[:size]))

    def set(self, host: np.ndarray, stream: Stream) -> None:
        memory = self.memory
        stream.push(lambda: np.copyto(memory, host))

    def get(self, out: np.ndarray | None = None, blocking: bool = True) -> np.ndarray:
        out = np.empty(self.size, dtype=np.uint8) if out is None else out
        self._cuda.current.synchronize()
        np.copyto(out, self.memory)
        return out


class Cuda:
    """The namespaces `xp` and `xp.cuda` in one."""

    def __init__(self) -> None:
        self.current = Stream(self)

    @property
    def cuda(self) -> Cuda:
        return self

    def Stream(self, *, non_blocking: bool) -> Stream:
        assert non_blocking, "streams that wait for the default stream wait for each other"
        return Stream(self)

    def Event(self, *, block: bool, disable_timing: bool) -> Event:
        return Event(self)

    def get_current_stream(self) -> Stream:
        return self.current

    def alloc_pinned_memory(self, size: int) -> bytearray:
        return bytearray(size)

    def empty(self, size: int, dtype: Any) -> Array:
        return Array(self, size)

    def asnumpy(self, array: Array) -> np.ndarray:
        return array.get()
