"""The tables of a comparison, compiled: made, looked up, opened entries read (see `Comparison`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def rectified(tables: Array, e: Array, u: Array, r: Array, top: int, one: int, out: Array) -> None:
    columns = tables.shape[2]
    for i in range(e.size):
        entry = tables[i, np.int64(e[i])]
        c, low = entry[0], entry[1]
        if u[i] >> top:
            out[i] = c * u[i] - (entry[2] if columns == 3 else r[i] - low)
        else:
            out[i] = (one - c) * u[i] - low


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _looked_up(tables: Array, i: int, v: int) -> Any:
    """Bit v of row i, and the parity of the bits above it: rows of numbers of any one width."""
    bits = np.int64(8 * tables.itemsize)
    at, low = v // bits, np.uint64(v % bits)
    own = np.uint64(tables[i, at])
    folded = (own >> low) >> np.uint64(1)
    for j in range(at + 1, tables.shape[1]):
        folded ^= np.uint64(tables[i, j])
    own >>= low
    if bits > 8:
        folded ^= folded >> np.uint64(32)
        folded ^= folded >> np.uint64(16)
        folded ^= folded >> np.uint64(8)
    folded ^= folded >> np.uint64(4)
    folded ^= folded >> np.uint64(2)
    folded ^= folded >> np.uint64(1)
    return own & np.uint64(1), folded & np.uint64(1)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def look_up(tables: Array, v: Array, equal: Array, less: Array) -> None:
    for i in range(v.size):
        equal[i], less[i] = _looked_up(tables, i, np.int64(v[i]))


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def outcome(tables: Array, v: Array, down: int, mask: int, place: int, last: bool, share: Array) -> None:
    keep = np.uint64(0 if last else 1)
    for i in range(v.size):
        equal, less = _looked_up(tables, i, np.int64((v[i] >> down) & mask))
        share[i] ^= (less | ((equal & keep) << np.uint64(1))) << place


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def pick(tables: Array, e: Array, place: int, share: Array) -> None:
    for i in range(e.size):
        at = np.int64(e[i])
        share[i] ^= (np.uint64(tables[i, at >> 3] >> np.uint8(at & 7)) & np.uint64(1)) << place


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def outcome_rows(r: Array, alpha: Array, patterns: Array, top: int, bits: int, out: Array) -> None:
    low = np.int64(patterns.shape[0] - 1)
    for i in range(r.size):
        flipped = np.uint8(np.uint64(0) - ((r[i] >> top) ^ (alpha[i] >> bits)))
        a = np.int64(alpha[i]) & low
        for b in range(patterns.shape[1]):
            out[i, b] = patterns[a, b] ^ flipped


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def flip_bits(tables: Array, block: Array) -> None:
    for i in range(block.size):
        at = np.int64(block[i])
        tables[i, at >> 3] ^= np.uint8(1 << (at & 7))


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def outcome_tables(r: Array, alpha: Array, below: Array, top: int, wrap: int, columns: int, out: Array) -> None:
    """below[e] is [value < r's] by the plain outcome bits e; `wrap` is 2^window mod 2^64, or 0 with two columns."""
    one = np.uint64(1)
    for i in range(r.size):
        at, high = i * below.size * columns, r[i] >> top
        for e in range(below.size):
            lower = below[np.int64(alpha[i]) ^ e]
            flipped = high ^ lower
            out[at] = flipped
            out[at + 1] = (one - flipped) * (r[i] - lower * wrap)
            if columns == 3:
                out[at + 2] = flipped * r[i]
            at += columns
