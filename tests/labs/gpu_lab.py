"""A model of a GPU's streams, events and memory pools: as much of CuPy as the engine uses, and as unkind as the real
thing may be.

A graph that is launched on a stream runs when something waits for that stream, or works in it; single array operations
run at once. Memory that is let go of is poisoned, and given out again at once, to its own stream and pool.
"""

from __future__ import annotations

import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Self

import numpy as np
from capture_lab import Access, Capture, CUDARuntimeError, Graph, Work

POISON, PIECE = 0xD5, 512


class OutOfMemoryError(MemoryError):
    """The device has less memory than was asked for."""


# ---- memory ----------------------------------------------------------------------------------------------------------


class Chunk:
    """A piece of device memory, of one pool and one stream for as long as it exists."""

    def __init__(self, size: int, stream: Stream, pool: Pool):
        whole = np.empty(size + PIECE, dtype=np.uint8)
        self.raw = whole[-whole.ctypes.data % PIECE :][:size]
        self.stream, self.pool, self.gone = stream, weakref.ref(pool), False
        self.poison()

    def poison(self) -> None:
        self.raw.fill(POISON)


class Block:
    """Holds a chunk for those who use it: the chunk goes back to its pool together with the last of them."""

    def __init__(self, chunk: Chunk, gpu: Gpu):
        self.chunk, self._gpu = chunk, gpu

    def __del__(self) -> None:
        with self._gpu.lock:
            pool = self.chunk.pool()
            if pool is None:
                self.chunk.gone = True
            else:
                pool.take_back(self.chunk)


class Pool:
    """Stands where a `cupy.cuda.MemoryPool` stands. Each stream has its own free memory."""

    def __init__(self, gpu: Gpu, allocator: Callable[[int], Any] | None = None):
        self._gpu, self._free = gpu, dict[tuple[int, int], list[Chunk]]()
        self._allocator = allocator or gpu.reserve
        self._used = self._total = 0
        gpu.pools.add(self)

    def malloc(self, size: int) -> Block:
        size = max(1, -(-size // PIECE)) * PIECE
        with self._gpu.lock:
            stream = self._gpu.current
            free = self._free.setdefault((stream.ptr, size), [])
            if not free:
                self._grow(size)
            self._used += size
            return Block(free.pop() if free else Chunk(size, stream, self), self._gpu)

    def _grow(self, size: int) -> None:
        """As CuPy does: where the device is full, all free memory is given up first, whatever graphs use of it."""
        try:
            self._allocator(size)
        except CUDARuntimeError:
            self.free_all_blocks()
            try:
                self._allocator(size)
            except CUDARuntimeError:
                total = size + self._total
                raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes)"
                                       ) from None
        self._total += size

    def take_back(self, chunk: Chunk) -> None:
        self._used -= chunk.raw.size
        self._free[chunk.stream.ptr, chunk.raw.size].append(chunk)
        chunk.stream.push(chunk.poison)  # behind what was queued before
        if chunk.stream.queued == chunk.stream.finished + 1 and not self._gpu.dead:
            chunk.stream.run()

    def poison(self) -> None:
        for free in self._free.values():
            for chunk in free:
                chunk.poison()

    def free_all_blocks(self) -> None:
        with self._gpu.lock:
            for free in self._free.values():
                for chunk in free:
                    chunk.poison()
                    chunk.gone = True
                    self._total -= chunk.raw.size
                free.clear()

    __del__ = free_all_blocks

    def used_bytes(self) -> int:
        return self._used

    def free_bytes(self) -> int:
        return self._total - self._used

    def total_bytes(self) -> int:
        return self._total


class Allocating:
    """Stands where `cupy.cuda.using_allocator` stands: within it, this thread allocates so."""

    def __init__(self, gpu: Gpu, allocator: Callable[[int], Block] | None = None):
        self._gpu, self._allocator = gpu, allocator or gpu.common.malloc

    def __enter__(self) -> None:
        self._gpu.thread.allocators.append(self._allocator)

    def __exit__(self, *error: Any) -> None:
        self._gpu.thread.allocators.pop()


# ---- streams and events ----------------------------------------------------------------------------------------------


class Event:
    def __init__(self, gpu: Gpu, block: bool = False, disable_timing: bool = False):
        self._gpu, self._stream, self._position = gpu, gpu.null, 0
        self.capture: Capture | None = None
        self.tail: frozenset[int] = frozenset()

    def record(self, stream: Stream | None = None) -> None:
        with self._gpu.lock:
            self._stream = stream or self._gpu.current
            self._position, self.capture = self._stream.queued, self._stream.capture
            self.tail = frozenset(self.capture.tails[self._stream] if self.capture else ())

    @property
    def done(self) -> bool:
        """False as long as may be: the work before it runs when somebody has asked."""
        with self._gpu.lock:
            self._refuse_in_capture("cudaEventQuery")
            if self.happened:
                return True
            self.happen()
            return False

    def synchronize(self) -> None:
        with self._gpu.lock:
            self._refuse_in_capture("cudaEventSynchronize")
            self.happen()

    @property
    def happened(self) -> bool:
        return self._stream.finished >= self._position

    def happen(self) -> None:
        self._stream.run(self._position)

    def _refuse_in_capture(self, call: str) -> None:
        if self.capture is not None:
            raise self.capture.invalid(f"cudaErrorCapturedEvent: {call} of an event that was recorded in a capture")
        self._gpu.current.refuse_in_capture(call)


class Stream:
    def __init__(self, gpu: Gpu, non_blocking: bool = False):
        assert non_blocking, "streams that wait for the default stream wait for each other"
        self._gpu, self._work = gpu, deque[Work]()
        self.queued = self.finished = 0
        self.capture: Capture | None = None
        with gpu.lock:
            gpu.streams += 1
            self.ptr = gpu.streams

    def __enter__(self) -> Self:
        self._gpu.thread.streams.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        self._gpu.thread.streams.pop()

    def push(self, work: Work) -> None:
        with self._gpu.lock:
            self._work.append(work)
            self.queued += 1

    def run(self, until: int | None = None) -> None:
        with self._gpu.lock, np.errstate(all="ignore"):
            until = self.queued if until is None else until
            while self.finished < until:
                self._gpu.live()
                work = self._work.popleft()
                self.finished += 1
                work()

    def synchronize(self) -> None:
        with self._gpu.lock:
            self.refuse_in_capture("cudaStreamSynchronize")
            self.run()

    def wait_event(self, event: Event) -> None:
        with self._gpu.lock:
            mine, other = self.capture, event.capture
            if mine is None and other is None:
                self.push(event.happen)
            elif mine is None and not other.open:
                raise other.invalid("cudaErrorInvalidValue: a stream waits for an event of a capture that has ended")
            elif other is None or not other.open:
                raise mine.invalid("cudaErrorStreamCaptureIsolation: a capture waits for an event that is not of it")
            elif mine not in (None, other):
                raise other.invalid("cudaErrorStreamCaptureMerge: a stream of one capture waits for another capture")
            else:
                self.capture = other
                other.tails.setdefault(self, set()).update(event.tail)

    def begin_capture(self, mode: int = 2) -> None:
        assert mode == 2, "only relaxed captures let several threads issue"
        with self._gpu.lock:
            if self is self._gpu.null:
                raise RuntimeError("cannot capture on the default (legacy) stream")
            self.refuse_in_capture("cudaStreamBeginCapture")
            self.capture = Capture(self)

    def end_capture(self) -> Graph:
        with self._gpu.lock:
            if self.capture is None:
                raise CUDARuntimeError("cudaErrorIllegalState: the stream is not capturing")
            nodes = self.capture.ended(self)
            self._gpu.graphs.append(graph := Graph(self._gpu, nodes))
            return graph

    def is_capturing(self) -> bool:
        if self.capture is not None and self.capture.why:
            raise RuntimeError("the stream was capturing, but an error has invalidated the capture sequence")
        return self.capture is not None

    def refuse_in_capture(self, call: str) -> None:
        if self.capture is not None:
            raise self.capture.invalid(f"cudaErrorStreamCaptureUnsupported: {call} while the stream is capturing")


# ---- the device ------------------------------------------------------------------------------------------------------


class Thread(threading.local):
    """What each thread of the host has for itself."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.allocators: list[Callable[[int], Block]] = []


class Gpu:
    """What streams, pools and threads share.

    seed     of the orders in which graphs run
    memory   bytes of the device; None: as many as are asked for
    """

    def __init__(self, seed: int = 0, memory: int | None = None):
        self.lock, self.random, self.memory = threading.RLock(), random.Random(seed), memory
        self.graphs: list[Graph] = []
        self.pools: weakref.WeakSet[Pool] = weakref.WeakSet()
        self.compiled: set[Any] = set()
        self.thread, self.streams = Thread(), 0
        self.segmented = False  # runs are of many graphs, which leave each other words in free memory of their pools
        self.dead = ""  # why nothing runs here any more: a kernel has trapped
        self.null, self.common = Stream(self, non_blocking=True), Pool(self)

    @property
    def current(self) -> Stream:
        return self.thread.streams[-1] if self.thread.streams else self.null

    @property
    def allocator(self) -> Callable[[int], Block]:
        return self.thread.allocators[-1] if self.thread.allocators else self.common.malloc

    def live(self) -> None:
        if self.dead:
            raise CUDARuntimeError(self.dead)

    def memory_info(self) -> tuple[int, int]:
        """Bytes that no pool holds, and bytes of the device."""
        most = 1 << 40 if self.memory is None else self.memory
        return most - sum(p.total_bytes() for p in self.pools), most

    def reserve(self, size: int) -> None:
        """Raises CUDARuntimeError where the device has no `size` bytes more."""
        if size > self.memory_info()[0]:
            raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")

    def run(self, name: str, work: Work, accesses: Iterable[Access], compiled: Any,
            stream: Stream | None = None) -> None:
        """Runs an operation, or records it while its stream is capturing. `compiled` is what is made for it at first
        use: a kernel for these types, a reduction for this shape; None: nothing."""
        with self.lock:
            stream = stream or self.current
            self.live()
            if stream.capture is None:
                stream.run()
                with np.errstate(all="ignore"):
                    work()
                self.compiled.add(compiled)
            elif compiled is not None and compiled not in self.compiled:
                raise stream.capture.invalid(f"{compiled} is compiled while capturing: run it once before")
            else:
                stream.capture.record(stream, name, work, accesses)
