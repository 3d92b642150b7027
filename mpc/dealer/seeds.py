"""One seed for each serial, which is gone once it was taken.

The seeds are the leaves of a binary tree of keys (Goldreich, Goldwasser, Micali: How to construct random functions,
1986). Each key gives the two below it by a one-way function. What is held are the keys of subtrees of which no seed was
taken. To take a seed, the key above it is replaced by those that stand beside its path. So what is held then says
nothing of that seed, nor of any other that was taken. Serials may be skipped and come in any order. The cost is at most
2 DEPTH hashes, however far a serial leads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from secformer.mpc.errors import RangeError, ReusedRandomness
from secformer.mpc.net.notes import hexadecimal, whole
from secformer.mpc.prg import SEED_BYTES, derive, fresh_seed

DEPTH = 40
SERIALS = 1 << DEPTH  # serials are below
Subtree = tuple[int, int]  # its first serial, and its height: it has 2^height serials


class Seeds:
    """The seeds that are left. Not thread-safe."""

    def __init__(self, keys: dict[Subtree, bytes]):
        self._keys = keys

    @classmethod
    def fresh(cls) -> Self:
        """One seed for every serial, from the operating system."""
        return cls({(0, DEPTH): fresh_seed()})

    def take(self, serial: int) -> bytes:
        """The seed of a serial, which is not held any more. Raises ReusedRandomness where it was taken before,
        RangeError for what is no serial."""
        return self.cut(serial, 1)._keys[serial, 0]

    def cut(self, first: int, count: int) -> Seeds:
        """The seeds of `count` serials from `first` on, which are not held here any more. Raises as `take`."""
        self.require(first, count)
        return Seeds(self._removed(first, first + count))

    def require(self, first: int, count: int) -> None:
        """Raises as `take` unless the seeds of these serials are left."""
        if first < 0 or count < 1 or first + count > SERIALS:
            raise RangeError(f"serials are 0 to {SERIALS - 1}; serials {first} to {first + count - 1} were asked for. "
                             f"Begin a new epoch when they are used up")
        if not any(a <= first and first + count <= b for a, b in self.left()):
            raise ReusedRandomness(f"the seed of serial {first} is not here any more, and a mask serves once: was a "
                                   f"state folder or a store restored from a backup?")

    def drop(self, first: int, end: int) -> bool:
        """Lets go of the seeds of the serials from `first` on and below `end`; whether there were any."""
        return bool(self._removed(first, end))

    def left(self) -> list[tuple[int, int]]:
        """The serials whose seeds are left, as ranges: the first, and the one after the last."""
        ranges: list[tuple[int, int]] = []
        for start, height in sorted(self._keys):
            end = start + (1 << height)
            if ranges and ranges[-1][1] == start:
                ranges[-1] = ranges[-1][0], end
            else:
                ranges.append((start, end))
        return ranges

    def rows(self) -> list[list[Any]]:
        """What is held, for JSON; `of_rows` is the inverse."""
        return [[start, height, key.hex()] for (start, height), key in sorted(self._keys.items())]

    @classmethod
    def of_rows(cls, rows: Iterable[Any]) -> Self:
        """Raises ValueError, TypeError for what is no such list."""
        keys: dict[Subtree, bytes] = {}
        end = 0
        for start, height, key in rows:
            size = 1 << whole(height, 0, DEPTH)
            if whole(start, end, SERIALS - size) % size:
                raise ValueError(f"no subtree of {size} serials begins at {start}")
            keys[start, height], end = hexadecimal(key, SEED_BYTES), start + size
        return cls(keys)

    def _removed(self, first: int, end: int) -> dict[Subtree, bytes]:
        """Takes the keys of the serials from `first` on and below `end` out of what is held."""
        found: dict[Subtree, bytes] = {}
        waiting = [tree for tree in self._keys if tree[0] < end and first < tree[0] + (1 << tree[1])]
        while waiting:
            start, height = tree = waiting.pop()
            key, size = self._keys.pop(tree), 1 << height
            if first <= start and start + size <= end:
                found[tree] = key
                continue
            for side, half in enumerate((start, start + size // 2)):
                self._keys[half, height - 1] = derive(key, "below", side)
                if half < end and first < half + size // 2:
                    waiting.append((half, height - 1))
        return found

    def __repr__(self) -> str:
        return f"Seeds({len(self._keys)} subtrees)"
