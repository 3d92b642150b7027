"""The tables of a comparison, compiled: made, looked up, opened entries read (see `Comparison`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

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


@intrinsic  # type: ignore[untyped-decorator]
def _ones(context: Any, word: Any) -> Any:
    """How many bits of a uint64 are set."""
    return types.uint64(types.uint64), lambda context, builder, signature, arguments: builder.ctpop(arguments[0])


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _looked_up(tables: Array, i: int, v: int) -> Any:
    """Bit v of row i, and the parity of the bits above it: rows of bytes or of words. Without a branch, since v is
    random, or a division."""
    down = np.uint64(3 if tables.itemsize == 1 else 6)
    at = np.int64(v >> down)
    own = np.uint64(tables[i, at]) >> (v & ((np.uint64(1) << down) - np.uint64(1)))
    above = own >> np.uint64(1)
    for j in range(tables.shape[1]):
        above ^= np.uint64(tables[i, j]) & (np.uint64(0) - np.uint64(j > at))
    return own & np.uint64(1), _ones(above) & np.uint64(1)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def look_up(tables: Array, v: Array, equal: Array, less: Array) -> None:
    for i in range(v.size):
        equal[i], less[i] = _looked_up(tables, i, v[i])


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def outcome(tables: Array, v: Array, down: int, mask: int, place: int, last: bool, share: Array) -> None:
    keep = np.uint64(0 if last else 1)
    for i in range(v.size):
        equal, less = _looked_up(tables, i, (v[i] >> down) & mask)
        share[i] ^= (less | ((equal & keep) << np.uint64(1))) << place


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def pick(tables: Array, e: Array, place: int, share: Array) -> None:
    for i in range(e.size):
        at = np.int64(e[i])
        share[i] ^= (np.uint64(tables[i, at >> 3] >> np.uint8(at & 7)) & np.uint64(1)) << place


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def below(tables: Array, u: Array, thresholds: Array, low: int, start: int, octets: Array) -> None:
    """Rows of words: the parities of all suffixes of a row are made once and serve every threshold."""
    words = tables.shape[1]
    above = np.empty(words, dtype=np.uint64)  # bit v: the parity of the row's bits above v
    for i in range(u.size):
        beyond = np.uint64(0)
        for j in range(words - 1, -1, -1):
            own = tables[i, j]
            suffix = own ^ (own >> np.uint64(1))
            suffix ^= suffix >> np.uint64(2)
            suffix ^= suffix >> np.uint64(4)
            suffix ^= suffix >> np.uint64(8)
            suffix ^= suffix >> np.uint64(16)
            suffix ^= suffix >> np.uint64(32)
            above[j] = suffix ^ own ^ beyond
            beyond ^= np.uint64(0) - (suffix & np.uint64(1))
        octet, place = (start + i) >> 3, np.uint64((start + i) & 7)
        for t in range(thresholds.size):
            v = (u[i] - thresholds[t]) & low
            bit = (above[np.int64(v >> np.uint64(6))] >> (v & np.uint64(63))) & np.uint64(1)
            octets[t, octet] ^= np.uint8(bit << place)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def signs(r: Array, octets: Array, top: int, out: Array) -> None:
    for i in range(r.size):
        out[i] = np.uint64((octets[i >> 3] >> np.uint8(i & 7)) & np.uint8(1)) ^ (r[i] >> top)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def counted(
    bits: Array, octets: Array, u: Array, threshold: int, top: int, one: int, columns: int, length: int, out: Array
) -> None:
    for row in range(out.shape[1]):
        for segment in range(out.shape[0]):
            start, stop = segment * length, min((segment + 1) * length, columns)
            total = np.uint64(0)
            for i in range(row * columns + start, row * columns + stop):
                e = np.uint64((octets[i >> 3] >> np.uint8(i & 7)) & np.uint8(1))
                equal = np.uint64(1) ^ e ^ (((u[i] - threshold) >> top) & np.uint64(1))
                flip = np.uint64(0) - equal  # all ones where the bit is one minus what is shared
                total += (bits[i] ^ flip) + equal + (one & flip)
            out[segment, row] = total


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
