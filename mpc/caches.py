"""Caches: right operands of `matmul` that grow, such as the keys and values of a text's tokens in a decoder.

A row is opened once, under a mask that stands for as long as the cache does, and is not opened again by the products
that follow: as a `Weight`, but row by row. Each row takes the next slot. A slot is used up before its row is opened; a
row that is not wanted any more keeps its slot, and public masks leave it out. So no mask serves twice, whatever the
program goes back on.

T slots (the capacity), G stacked matrices, D entries of a row in each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from secformer.mpc.errors import ReusedRandomness, ShapeError
from secformer.mpc.scales import Operand
from secformer.mpc.shares import Operators, Share, Weight


class Cache:
    """A cache of a session: number `number`, rows (G, D).

    capacity  T, the slots that products take part with, filled or not: a public size. Products of one capacity have
              one price, however many rows came
    base      a weight (P, G D) whose rows are in the first P slots, under the weight's own mask
    filled    slots that are used up
    data      what the session keeps
    """

    __slots__ = ("base", "capacity", "data", "filled", "number", "row", "session")

    def __init__(self, session: Operators, number: int, row: tuple[int, int], base: Weight | None = None):
        self.session, self.number, self.row, self.base = session, number, tuple(row), base
        self.data: Any = None
        if base is not None and (len(base.shape) != 2 or base.shape[1] != row[0] * row[1]):
            raise ShapeError(f"a cache of rows {self.row} begins with those of a weight (P, {row[0] * row[1]}), got "
                             f"{base!r}")
        self.filled = self.capacity = 0 if base is None else base.shape[0]

    @property
    def first(self) -> int:
        """P, the slots that the base takes."""
        return 0 if self.base is None else self.base.shape[0]

    def grow(self, capacity: int) -> None:
        """More slots. Raises ShapeError for fewer than there are."""
        if capacity < self.capacity:
            raise ShapeError(f"a cache of {self.capacity} slots cannot shrink to {capacity}")
        self.capacity = capacity

    def taking(self, rows: Share) -> Cached:
        """The cache as a right operand (1, G, T, D), with rows (n, G, D) that the next product opens in the next n
        slots. The slots are used up at once. Raises ReusedRandomness where fewer are free."""
        if rows.shape[1:] != self.row:
            raise ShapeError(f"a cache of rows {self.row} takes (n, {self.row[0]}, {self.row[1]}), got {rows.shape}")
        first, self.filled = self.filled, self.filled + rows.shape[0]
        if self.filled > self.capacity:
            raise ReusedRandomness(f"{rows.shape[0]} rows came for a cache of {self.capacity} slots, of which {first} "
                                   f"are used up, and a slot serves once; let it grow first")
        return Cached(self, rows, first)

    def __repr__(self) -> str:
        return f"Cache({self.number}, {self.filled} of {self.capacity} slots, rows {self.row})"


class Cached:
    """A cache as the right operand of one product: (1, G, T, D), or with its last two axes swapped."""

    __slots__ = ("cache", "first", "rows", "swapped")

    def __init__(self, cache: Cache, rows: Share, first: int):
        self.cache, self.rows, self.first, self.swapped = cache, rows, first, False

    def transposed(self) -> Cached:
        """The same operand as (1, G, D, T)."""
        found = Cached(self.cache, self.rows, self.first)
        found.swapped = not self.swapped
        return found

    def placed(self, rows: Any) -> Any:
        """Rows (T, G, D) as this operand."""
        return as_operand(rows, self.swapped)

    @property
    def session(self) -> Operators:
        return self.cache.session

    @property
    def shape(self) -> tuple[int, ...]:
        (g, d), t = self.cache.row, self.cache.capacity
        return (1, g, d, t) if self.swapped else (1, g, t, d)

    @property
    def ndim(self) -> int:
        return 4

    @property
    def frac(self) -> int:
        """Fractional bits of the rows that came."""
        return self.rows.frac


def as_operand(rows: Any, swapped: bool) -> Any:
    """Rows (T, G, D) as an operand (1, G, T, D), or (1, G, D, T)."""
    return rows.transpose(1, 2, 0)[None] if swapped else rows.transpose(1, 0, 2)[None]


Kept = Share | Cached  # a right operand that is no weight


@dataclass(frozen=True, eq=False)
class Entering:
    """A cache as it enters a product, with what its new rows are opened as, words (n, G, D)."""

    cached: Cached
    rows: Operand

    @property
    def shape(self) -> tuple[int, ...]:
        return self.cached.shape

    @property
    def frac(self) -> int:
        return self.rows.frac


def whole(x: Kept) -> Share:
    """A share that is in no cache. Raises ShapeError for a cache: its rows are not all at hand."""
    if isinstance(x, Cached):
        raise ShapeError(f"whole texts are needed here, got {x.cache!r}")
    return x
