"""Element-wise products, compiled: what a party adds up, and the terms that the dealer makes (see `Hadamard`).

Each operand takes its own steps from row to row and from column to column, so that broadcasting copies nothing. Parts
of a row stay in the first cache while one term after the other is made; terms that a pair lacks are empty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any
Steps = tuple[int, int]
PART = 512  # words of a row that are made at a time


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _part(words: Array, at: int, step: int, n: int, room: Array) -> Array:
    """n words from `at` on, or n times the word there: contiguous, so that loops are a vector's."""
    if step:
        return words[at : at + n]
    for c in range(n):
        room[c] = words[at]
    return room[:n]


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _counts(u: int, window: int) -> Any:
    """All bits set where a lifted operand's wrap counts: where the top bit of u is 0."""
    return (u >> (window - np.uint64(1))) - np.uint64(1)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def multiplied(columns: int, x: Steps, y: Steps, u: Array, share: Array, offset: int, window: int,
               v: Array, other: Array, other_offset: int, other_window: int, shown: int,
               product: Array, left: Array, right: Array, both: Array, out: Array) -> None:
    """`shown` has all bits set at the party that adds what was opened, none at the other. Offsets, windows and `shown`
    are words."""
    room = np.empty((4, PART), np.uint64)
    for row in range(out.size // columns):
        for begin in range(0, columns, PART):
            n, at = min(PART, columns - begin), row * columns + begin
            i, j = row * x[0] + begin * x[1], row * y[0] + begin * y[1]
            e, mine = _part(u, i, x[1], n, room[0]), _part(share, i, x[1], n, room[1])
            f, theirs = _part(v, j, y[1], n, room[2]), _part(other, j, y[1], n, room[3])
            total, term = out[at : at + n], product[at : at + n]
            for c in range(n):
                d = e[c] - offset
                total[c] = d * theirs[c] + (f[c] - other_offset) * (mine[c] - (d & shown)) + term[c]
            if left.size:
                term = left[at : at + n]
                for c in range(n):
                    total[c] += (term[c] << window) & _counts(e[c], window)
            if right.size:
                term = right[at : at + n]
                for c in range(n):
                    total[c] += (term[c] << other_window) & _counts(f[c], other_window)
            if both.size:
                term = both[at : at + n]
                for c in range(n):
                    counts = _counts(e[c], window) & _counts(f[c], other_window)
                    total[c] += (term[c] << (window + other_window)) & counts


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _mask(r: int, low: int, lifted: int) -> Any:
    """a of a mask: r, or -(r mod 2^k). `lifted` has all bits set or none."""
    return ((r & low) ^ lifted) - lifted


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _top(r: int, window: int) -> Any:
    """m of a lifted operand's mask."""
    return (r >> (window - np.uint64(1))) & np.uint64(1)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def terms(columns: int, x: Steps, y: Steps, r: Array, low: int, window: int, lifted: int, s: Array, other_low: int,
          other_window: int, other_lifted: int, square: bool, product: Array, left: Array, right: Array,
          both: Array) -> None:
    """Masks of whole words have low bits that are all set. Windows, low bits and `lifted` are words."""
    room = np.empty((2, PART), np.uint64)
    for row in range(product.size // columns):
        for begin in range(0, columns, PART):
            n, at = min(PART, columns - begin), row * columns + begin
            mine = _part(r, row * x[0] + begin * x[1], x[1], n, room[0])
            theirs = _part(s, row * y[0] + begin * y[1], y[1], n, room[1])
            term = product[at : at + n]
            for c in range(n):
                term[c] = _mask(mine[c], low, lifted) * _mask(theirs[c], other_low, other_lifted)
            if left.size:
                term = left[at : at + n]
                if square:
                    for c in range(n):
                        a = _mask(mine[c], low, lifted)
                        term[c] = _top(mine[c], window) * (a + a + (np.uint64(1) << window))
                else:
                    for c in range(n):
                        term[c] = _top(mine[c], window) * _mask(theirs[c], other_low, other_lifted)
            if right.size:
                term = right[at : at + n]
                for c in range(n):
                    term[c] = _top(theirs[c], other_window) * _mask(mine[c], low, lifted)
            if both.size:
                term = both[at : at + n]
                for c in range(n):
                    term[c] = _top(mine[c], window) * _top(theirs[c], other_window)
