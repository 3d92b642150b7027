"""Public tables behind the dealer's: outcomes of a comparison's blocks, powers of e (see `Comparison`, `ExpMask`)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

STEP_BITS = 4  # e^x is a public power, of an exponent below 2^this, times an entry of a table


def outcomes(blocks: int) -> np.ndarray:
    """[value < r's], L of `Comparison`, for every pattern of outcome bits: (2^(2 blocks - 1),) words."""
    e = np.arange(1 << (2 * blocks - 1), dtype=np.uint64)
    below, tied = np.zeros_like(e), np.ones_like(e)
    for b in range(blocks):
        below |= tied & (e >> np.uint64(2 * b)) & np.uint64(1)
        tied &= e >> np.uint64(2 * b + 1)
    return below


@lru_cache(maxsize=8)
def outcome_patterns(blocks: int) -> np.ndarray:
    """For every alpha, without beta, the row of [value < r's] by opened outcome bits: (2^(2 blocks - 1), bytes)."""
    below = outcomes(blocks).astype(np.uint8)
    e = np.arange(below.size)
    return np.packbits(below[e[:, None] ^ e[None, :]], axis=1, bitorder="little")


def power_factors(period_bits: int, frac: int) -> np.ndarray:
    """What makes the entry m places above r's own of e^(s - rho), rho = r mod s and s = 2^STEP_BITS: (entries,).

    The entry is e^(m s - rho) modulo the period; entries from 1 on lie a period lower, but for values of entry 1 that
    are in the domain, which takes 2^frac.
    """
    entries, step = 1 << (period_bits - STEP_BITS), 1 << STEP_BITS
    turns = [-1, *(m - entries - 1 for m in range(1, entries))]
    return np.array([math.ldexp(math.exp(step * turn), frac) for turn in turns])
