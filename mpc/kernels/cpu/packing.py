"""Packing, opening and lifting of words, compiled: each in one pass, where the plain steps write whole arrays between.

Payloads have planes of four, two and one byte per word (see `Kernels.planes`); planes that a width lacks are empty.
Words are joined and cut in blocks that stay in the first cache, so that every loop is a vector's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any
Planes = tuple[Array, Array, Array]
BLOCK = 512  # words that are packed at a time: they stay in the first cache


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def planes(payload: Array, count: int, nbytes: int) -> Planes:
    """The planes of a payload of `count` words, which starts at a multiple of four bytes."""
    four = 4 * count if nbytes & 4 else 0
    two = four + (2 * count if nbytes & 2 else 0)
    one = two + (count if nbytes & 1 else 0)
    return payload[:four].view(np.uint32), payload[four:two].view(np.uint16), payload[two:one]


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _aligned(payload: Array) -> Array:
    """A payload that numbers of four bytes may be read from; part of a message may lie anywhere."""
    return payload.copy() if payload.ctypes.data % 4 else payload


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def join(planes: Planes, start: int, out: Array) -> None:
    """out = the words from `start` on."""
    four, two, one = planes
    n, shift = out.size, np.uint64(0)
    if four.size:
        part = four[start : start + n]
        for i in range(n):
            out[i] = np.uint64(part[i])
        shift = np.uint64(32)
    else:
        for i in range(n):
            out[i] = np.uint64(0)
    if two.size:
        half = two[start : start + n]
        for i in range(n):
            out[i] |= np.uint64(half[i]) << shift
        shift += np.uint64(16)
    if one.size:
        byte = one[start : start + n]
        for i in range(n):
            out[i] |= np.uint64(byte[i]) << shift


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def cut(words: Array, mask: int, start: int, planes: Planes) -> None:
    """Writes the words' low bits from `start` on."""
    four, two, one = planes
    n, shift = words.size, np.uint64(0)
    if four.size:
        part = four[start : start + n]
        for i in range(n):
            part[i] = np.uint32(words[i] & mask & np.uint64(0xFFFFFFFF))
        shift = np.uint64(32)
    if two.size:
        half = two[start : start + n]
        for i in range(n):
            half[i] = np.uint16(((words[i] & mask) >> shift) & np.uint64(0xFFFF))
        shift += np.uint64(16)
    if one.size:
        byte = one[start : start + n]
        for i in range(n):
            byte[i] = np.uint8(((words[i] & mask) >> shift) & np.uint64(0xFF))


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def pack(words: Array, mask: int, nbytes: int, out: Array) -> None:
    to = planes(out, words.size, nbytes)
    for start in range(0, words.size, BLOCK):
        cut(words[start : start + BLOCK], mask, start, to)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def unpack(payload: Array, nbytes: int, mask: int, out: Array) -> None:
    given = planes(_aligned(payload), out.size, nbytes)
    for start in range(0, out.size, BLOCK):
        part = out[start : start + BLOCK]
        join(given, start, part)
        for i in range(part.size):
            part[i] &= mask


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def add(words: Array, payload: Array, nbytes: int, mask: int, out: Array) -> None:
    """out = (words + those of the payload) & mask."""
    given, other = planes(_aligned(payload), words.size, nbytes), np.empty(BLOCK, np.uint64)
    for start in range(0, words.size, BLOCK):
        part, total = words[start : start + BLOCK], out[start : start + BLOCK]
        found = other[: part.size]
        join(given, start, found)
        for i in range(part.size):
            total[i] = (part[i] + found[i]) & mask


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def wraps(r: Array, window: int, out: Array) -> None:
    n, below = r.size, window - np.uint64(1)
    for i in range(n):
        carry = r[i] >> window
        out[i] = carry + ((r[i] >> below) & np.uint64(1))
        out[n + i] = carry


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def lifted(u: Array, z: Array, masked: Array, wraps: Array, window: int, shown: int, out: Array) -> None:
    """`shown` has all bits set at the party that adds what was opened, none at the other."""
    n, below = u.size, window - np.uint64(1)
    for i in range(n):
        high = np.uint64(0) - (u[i] >> below)
        wrap = (wraps[i] & ~high) | (wraps[n + i] & high)
        out[i] = z[i] - masked[i] + (u[i] & shown) + (wrap << window)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def rounded_up(words: Array, bits: int, out: Array) -> None:
    """Minus the words' negatives without their lowest bits."""
    for i in range(words.size):
        out[i] = np.uint64(0) - ((np.uint64(0) - words[i]) >> bits)
