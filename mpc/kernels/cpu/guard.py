"""The tables of guards, compiled: made and looked up (see `mpc/guards`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def tables(r: Array, sign: int, shift: int, low: int, ring: int, span: int, out: Array) -> None:
    """`ring` is the mask of the ring's bits; `sign` has all bits set where r is negated. All are words."""
    one, part = np.uint64(1), (np.uint64(1) << shift) - np.uint64(1)
    for i in range(r.size):
        start = ((r[i] ^ sign) - sign + low) & ring
        first, inside = start >> shift, start & part
        end = (inside + span + one) >> shift
        good = (one << end) - (one << np.uint64(inside != 0))
        out[i] = ~((good << first) | (good >> ((np.uint64(64) - first) & np.uint64(63))))


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def breaches(tables: Array, u: Array, shifts: Array, weights: Array, out: Array) -> None:
    """tables and weights (guards, n)."""
    each = u.size // max(1, out.size)
    for row in range(out.size):
        found = np.uint64(0)
        for g in range(shifts.size):
            shift = shifts[g]
            for i in range(row * each, (row + 1) * each):
                failed = (tables[g, i] >> ((u[i] >> shift) & np.uint64(63))) & np.uint64(1)
                found ^= (np.uint64(0) - failed) & weights[g, i]
        out[row] = found
