"""Captures of streams into graphs, as CUDA has them. What is captured runs in launches of its graph and at no other
time, in any order that streams and events allow. Knows operations and bytes, no arrays.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Work = Callable[[], object]


class CUDARuntimeError(RuntimeError):
    """What the driver refuses; a refusal that concerns a capture makes that capture invalid."""


@dataclass(frozen=True)
class Access:
    """Bytes that an operation reads or writes: from `low` to before `high`, as addresses."""

    chunk: Any
    low: int
    high: int
    writes: bool

    def bytes(self) -> bytes:
        """What is there now."""
        start = self.chunk.raw.ctypes.data
        return bytes(self.chunk.raw[self.low - start : self.high - start])

    def conflicts(self, other: Access) -> bool:
        return (self.writes or other.writes) and self.low < other.high and other.low < self.high

    def covers(self, other: Access) -> bool:
        return self.writes and self.low <= other.low and other.high <= self.high


@dataclass(frozen=True)
class Node:
    """A recorded operation, and the operations that it waits for."""

    name: str
    stream: int
    work: Work
    accesses: tuple[Access, ...]
    after: frozenset[int]


class Capture:
    """What is recorded between `begin_capture` and `end_capture` of `origin`, by all streams that have joined."""

    def __init__(self, origin: Any):
        self.origin, self.nodes = origin, list[Node]()
        self.tails: dict[Any, set[int]] = {origin: set()}  # what the next operation of a stream waits for
        self.why, self.open = "", True

    def record(self, stream: Any, name: str, work: Work, accesses: Iterable[Access]) -> None:
        if self.why:
            raise CUDARuntimeError(f"cudaErrorStreamCaptureInvalidated: {self.why}")
        if gc.isenabled():
            raise self.invalid("the garbage collector is on, and may free memory in the middle of a capture")
        self.nodes.append(Node(name, stream.ptr, work, tuple(accesses), frozenset(self.tails[stream])))
        self.tails[stream] = {len(self.nodes) - 1}

    def invalid(self, why: str) -> CUDARuntimeError:
        """Makes this capture invalid, and returns the error to raise."""
        self.why = self.why or why
        return CUDARuntimeError(why)

    def ended(self, stream: Any) -> list[Node]:
        if stream is not self.origin:
            raise self.invalid("cudaErrorStreamCaptureUnmatched: the capture began on another stream")
        for joined in self.tails:
            joined.capture = None
        self.open = False
        if self.why:
            raise CUDARuntimeError(f"cudaErrorStreamCaptureInvalidated: {self.why}")
        before, end = ancestors(self.nodes), self.tails[stream]
        reached = end.union(*(_bits(before[n]) for n in end))
        loose = [s.ptr for s, tail in self.tails.items() if not tail <= reached]
        if loose:
            raise CUDARuntimeError(f"cudaErrorStreamCaptureUnjoined: the origin waits for no end of streams {loose}")
        return self.nodes


def ancestors(nodes: list[Node]) -> list[int]:
    """For each operation, all that happen before it, as bits."""
    before: list[int] = []
    for node in nodes:
        mine = 0
        for n in node.after:
            mine |= before[n] | 1 << n
        before.append(mine)
    return before


def _bits(word: int) -> set[int]:
    return {n for n in range(word.bit_length()) if word >> n & 1}


class Graph:
    """Stands where a `cupy.cuda.Graph` stands.

    operations   how many operations were recorded, by name
    launches     how often it was launched
    watch        is called with the name of each operation that ran, and with what is now where it may have written
    """

    def __init__(self, gpu: Any, nodes: list[Node]):
        self._gpu, self._nodes = gpu, nodes
        self._chunks = {access.chunk for node in nodes for access in node.accesses}
        self.operations = Counter(node.name for node in nodes)
        self.launches = self.uploads = 0
        self.watch: Callable[[str, list[bytes]], object] | None = None

    def upload(self, stream: Any = None) -> None:
        self.uploads += 1

    def launch(self, stream: Any = None) -> None:
        with self._gpu.lock:
            stream = stream or self._gpu.current
            stream.refuse_in_capture("cudaGraphLaunch")
            self.launches += 1
            stream.push(self._replay)

    def _replay(self) -> None:
        if any(chunk.gone for chunk in self._chunks):
            raise CUDARuntimeError("cudaErrorIllegalAddress: the graph uses memory that its pool has given up")
        for pool in [self._gpu.common] if self._gpu.segmented else list(self._gpu.pools):
            pool.poison()
        for node in (self._nodes[n] for n in self._order()):
            node.work()
            if self.watch is not None:
                self.watch(node.name, [access.bytes() for access in node.accesses if access.writes])

    def _order(self) -> list[int]:
        """The operations in an order that streams and events allow: at random, or one stream as far ahead as may be."""
        rng = self._gpu.random
        streams = sorted({node.stream for node in self._nodes})
        ahead = {stream: rng.random() for stream in streams} if rng.random() < 0.7 else {}
        waiting = [len(node.after) for node in self._nodes]
        followers: list[list[int]] = [[] for _ in self._nodes]
        for n, node in enumerate(self._nodes):
            for earlier in node.after:
                followers[earlier].append(n)
        ready, order = [n for n, count in enumerate(waiting) if not count], []
        while ready:
            pick = max(range(len(ready)), key=lambda i: ahead.get(self._nodes[ready[i]].stream, rng.random()))
            order.append(ready.pop(pick))
            for n in followers[order[-1]]:
                waiting[n] -= 1
                if not waiting[n]:
                    ready.append(n)
        return order

    def races(self) -> list[str]:
        """Pairs of operations that touch the same memory, one of them writing, in no order: the graph is wrong."""
        before, found = ancestors(self._nodes), []
        log: dict[int, list[tuple[int, Access]]] = {}
        for n, node in enumerate(self._nodes):
            for access in node.accesses:
                seen = log.setdefault(id(access.chunk), [])
                found += [f"{self._nodes[m].name} of stream {self._nodes[m].stream}, {node.name} of {node.stream}"
                          for m, other in seen if m != n and access.conflicts(other) and not before[n] >> m & 1]
                seen[:] = [(m, other) for m, other in seen if not (access.covers(other) and before[n] >> m & 1)]
                seen.append((n, access))
        return list(dict.fromkeys(found))


