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


# ---- several arrays in one call (see `bundles.Table`) ----------------------------------------------------------------


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def numbers(facts: Array, i: int) -> Any:
    """Of array i: its elements, bytes of each on the wire, first word in the buffer, first byte in the payload."""
    return np.int64(facts[i, 0]), np.int64(facts[i, 1]), np.int64(facts[i, 4]), np.int64(facts[i, 5])


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def writable(payload: Array) -> Array:
    """Bytes that wider numbers may be written to: a part of a message, or, where that may lie anywhere, others."""
    return np.empty(payload.size, np.uint8) if payload.ctypes.data % 8 else payload


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def written(room: Array, payload: Array) -> None:
    """Brings what was written to `writable` bytes to their place."""
    if room.ctypes.data != payload.ctypes.data:
        payload[:] = room


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def write(words: Array, mask: int, start: int, count: int, nbytes: int, room: Array) -> None:
    """Writes the low bits of words start, ... of `count`, as `cut` does; eight bytes as they are."""
    if nbytes == 8:
        whole = room.view(np.uint64)
        for j in range(words.size):
            whole[start + j] = words[j] & mask
    else:
        cut(words, mask, start, planes(room, count, nbytes))


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _readable(payload: Array) -> Array:
    """A part of a message, whose words may be read."""
    return payload.copy() if payload.ctypes.data % 8 else payload


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _read(payload: Array, start: int, count: int, nbytes: int, out: Array) -> None:
    """out = the words of a payload of `count` from `start` on."""
    if nbytes == 8:
        whole = payload.view(np.uint64)
        for j in range(out.size):
            out[j] = whole[start + j]
    else:
        join(planes(payload, count, nbytes), start, out)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def pack_all(words: Array, facts: Array, out: Array) -> None:
    for i in range(facts.shape[0]):
        count, nbytes, at, first = numbers(facts, i)
        to = out[first : first + count * nbytes]
        room = writable(to)
        for start in range(0, count, BLOCK):
            write(words[at + start : at + min(count, start + BLOCK)], facts[i, 2], start, count, nbytes, room)
        written(room, to)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def unpack_all(payload: Array, facts: Array, out: Array) -> None:
    for i in range(facts.shape[0]):
        (count, nbytes, at, first), mask = numbers(facts, i), facts[i, 2]
        given = payload[first : first + count * nbytes]
        if facts[i, 3] == 1:
            out[at : at + (count + 7) // 8].view(np.uint8)[:count] = given
            continue
        given = _readable(given)
        for start in range(0, count, BLOCK):
            part = out[at + start : at + min(count, start + BLOCK)]
            _read(given, start, count, nbytes, part)
            for j in range(part.size):
                part[j] &= mask


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def open_all(mine: Array, theirs: Array, facts: Array, xor: bool, out: Array) -> None:
    """out = (the words of one payload + those of the other) & mask, or xor."""
    other = np.empty(BLOCK, np.uint64)
    for i in range(facts.shape[0]):
        (count, nbytes, at, first), mask = numbers(facts, i), facts[i, 2]
        end = first + count * nbytes
        ours, given = _readable(mine[first:end]), _readable(theirs[first:end])
        for start in range(0, count, BLOCK):
            total = out[at + start : at + min(count, start + BLOCK)]
            found = other[: total.size]
            _read(ours, start, count, nbytes, total)
            _read(given, start, count, nbytes, found)
            for j in range(total.size):
                total[j] = (total[j] ^ found[j] if xor else total[j] + found[j]) & mask
