"""The tables of guards on a GPU: made and looked up (`guard.cu`), all guards of an opening in one launch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from secformer.mpc.kernels.words import Array, Guard

THREADS = 256   # threads of a block; as LOOKERS in guard.cu
SLICE = 4096    # values of a row that one block looks up; as in guard.cu
GUARDS = 8      # guards that one launch takes; as in guard.cu


class Guards:
    """Launches of the kernels of `guard.cu`, by name, in arrays of the array module `xp`."""

    def __init__(self, xp: Any, kernel: Mapping[str, Any]):
        self._xp, self._kernel = xp, kernel

    def tables(self, r: Array, guards: tuple[Guard, ...], negated: bool) -> Array:
        """`Kernels.guard_tables` of flat masks."""
        out = self._xp.empty((len(guards), r.size), dtype=np.uint64)
        for g in range(0, len(guards) if r.size else 0, GUARDS):
            facts = np.uint64(r.size), np.int32(negated), *_facts(guards[g : g + GUARDS])
            self._kernel["guard_tables"]((-(-r.size // THREADS),), (THREADS,), (r, *facts, out[g : g + GUARDS]))
        return out.reshape(-1)

    def breaches(self, tables: Array, u: Array, shifts: tuple[int, ...], weights: Array, rows: int) -> Array:
        """`Kernels.breaches` of flat openings."""
        n = u.size
        if not n:
            return self._xp.zeros(rows, dtype=np.uint64)
        slices = -(-(n // rows) // SLICE)
        parts = slices * -(-len(shifts) // GUARDS)  # words per row, which are xored at last
        found = self._xp.empty(rows * parts, dtype=np.uint64)
        for g in range(0, len(shifts), GUARDS):
            facts = (*map(np.uint64, (n, n // rows, slices, parts)), *_shifts(shifts[g : g + GUARDS]))
            self._kernel["breaches"]((rows * slices,), (THREADS,), (tables[8 * g * n :], u, *facts, weights[g * n :],
                                                                    found[g // GUARDS * slices :]))
        if parts == 1:
            return found
        out = self._xp.empty(rows, dtype=np.uint64)
        self._kernel["row_xors"]((rows,), (THREADS,), (found, np.uint64(parts), out))
        return out


@lru_cache(maxsize=1 << 12)
def _facts(guards: tuple[Guard, ...]) -> tuple[Any, ...]:
    """How many guards there are, and their numbers, as `guard_tables` takes them."""
    each = [*guards, *[(0, 0, 0)] * (GUARDS - len(guards))]
    return (np.int32(len(guards)), *(word for shift, low, span in each
                                     for word in (np.int32(shift), np.uint64(low), np.uint64(span))))


@lru_cache(maxsize=1 << 12)
def _shifts(shifts: tuple[int, ...]) -> tuple[np.int32, ...]:
    """How many guards there are, and their shifts, as `breaches` takes them."""
    return (np.int32(len(shifts)), *map(np.int32, shifts), *[np.int32(0)] * (GUARDS - len(shifts)))
