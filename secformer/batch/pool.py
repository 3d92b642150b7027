"""Rows that wait for a cell, by their number of tokens: calls are cut from rows of about the same length."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from secformer.batch.tasks import Unit
from secformer.models.data.batch import FEW, PADDING

SUSPECT = 3  # failures of cells with a row among others, after which the row is asked alone


@dataclass(eq=False)
class Item:
    """A row of an open chunk that has no answer yet. `failures`: how many cells failed while they had it."""

    chunk: int
    place: int
    unit: Unit = field(repr=False)
    failures: int = 0

    @property
    def order(self) -> tuple[int, int]:
        return self.chunk, self.place


class Pool:
    """Rows that wait. `positions` is the number of their tokens."""

    def __init__(self) -> None:
        self._by_length: dict[int, deque[Item]] = {}
        self._groups: deque[list[Item]] = deque()  # rows that are asked together, and without others
        self.positions = 0

    def __bool__(self) -> bool:
        return bool(self._by_length or self._groups)

    def add(self, items: Iterable[Item]) -> None:
        """New rows, behind the others."""
        for item in items:
            self._by_length.setdefault(item.unit.length, deque()).append(item)
            self.positions += item.unit.length

    def give_back(self, items: Sequence[Item], *, halved: bool = False) -> None:
        """Rows that were taken, before the others. `halved`: each half is asked without other rows. So are rows that
        cells failed on several times, one by one."""
        self.positions += sum(item.unit.length for item in items)
        if halved:
            middle = len(items) // 2
            self._groups.extendleft(list(part) for part in (items[middle:], items[:middle]) if part)
            return
        for item in sorted(items, key=lambda each: each.order, reverse=True):
            if item.failures >= SUSPECT:
                self._groups.appendleft([item])
            else:
                self._by_length.setdefault(item.unit.length, deque()).appendleft(item)

    def take(self, room: int) -> list[Item]:
        """The rows of the next call: the one that came first, and those nearest to it in length, as many as have at
        most `room` positions together (texts times the longest). Nothing where no row waits.

        A call is one batch at the parties: no text has more padding than a batch may have (see
        `models/data/batch.py`).
        """
        if self._groups:
            return self._left(self._groups.popleft())
        if not self._by_length:
            return []
        first = min(self._by_length, key=lambda length: self._by_length[length][0].order)
        taken: list[Item] = []
        shortest = longest = first
        for length in sorted(self._by_length, key=lambda each: (abs(each - first), each)):
            low, high = min(shortest, length), max(longest, length)
            if high > low + FEW and PADDING[1] * high > PADDING[0] * low:
                break
            waiting, count = self._by_length[length], max(0 if taken else 1, room // high - len(taken))
            if not count:
                break
            shortest, longest = low, high
            taken += [waiting.popleft() for _ in range(min(count, len(waiting)))]
            if not waiting:
                del self._by_length[length]
        return self._left(taken)

    def _left(self, taken: list[Item]) -> list[Item]:
        self.positions -= sum(item.unit.length for item in taken)
        return taken
