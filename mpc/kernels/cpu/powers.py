"""The masked exponential, compiled (see `ExpMask`): the dealer's tables, and their entries times public powers of e."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from secformer.mpc.kernels.taylor import EXP, ROUND, SQUARINGS

Array = Any
BLOCK = 512  # elements whose powers stay in the first cache


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _grow(v: Array, unit: float, out: Array) -> None:
    """out = e^(v unit 2^SQUARINGS), in the reference's order."""
    for i in range(v.size):
        y = np.float64(np.int64(v[i])) * unit
        e = EXP[11]
        e = (((((e * y + EXP[10]) * y + EXP[9]) * y + EXP[8]) * y + EXP[7]) * y + EXP[6]) * y + EXP[5]
        e = ((((e * y + EXP[4]) * y + EXP[3]) * y + EXP[2]) * y + EXP[1]) * y + EXP[0]
        for _ in range(SQUARINGS):
            e = e * e
        out[i] = e


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def growth(v: Array, unit: float, out: Array) -> None:
    _grow(v, unit, out)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def powers(r: Array, down: int, unit: float, top: int, factors: Array, one: float, out: Array) -> None:
    """out (entries, n); `down` is how far the entry's number lies above bit 0."""
    n, entries = out.shape[1], out.shape[0]
    step, last = np.uint64(1) << down, np.uint64(entries - 1)
    up, e = np.empty(BLOCK, np.uint64), np.empty(BLOCK)
    for start in range(0, n, BLOCK):
        part = r[start : start + BLOCK]
        v, grown = up[: part.size], e[: part.size]
        for i in range(part.size):
            v[i] = step - (part[i] & (step - np.uint64(1)))
        _grow(v, unit, grown)
        for m in range(entries):
            factor = factors[m]
            for i in range(part.size):
                chosen = one if m == 1 and v[i] <= top else factor
                word = np.uint64(np.int64((grown[i] * chosen + ROUND) - ROUND))
                out[np.int64(((part[i] >> down) + np.uint64(m)) & last), start + i] = word


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def exponential(u: Array, down: int, unit: float, table: Array, one: float, out: Array) -> None:
    low = (np.uint64(1) << down) - np.uint64(1)
    rest, e = np.empty(BLOCK, np.uint64), np.empty(BLOCK)
    for start in range(0, u.size, BLOCK):
        part = u[start : start + BLOCK]
        v, grown = rest[: part.size], e[: part.size]
        for i in range(part.size):
            v[i] = part[i] & low
        _grow(v, unit, grown)
        for i in range(part.size):
            factor = np.uint64(np.int64((grown[i] * one + ROUND) - ROUND))
            out[start + i] = factor * table[np.int64(part[i] >> down), start + i]
