"""Masking, opening and packing of words, compiled: each in one pass, where the plain steps write whole arrays between.

A payload is planes of four, two and one byte (see `NumpyKernels.pack`); planes that a width lacks are empty. A
keystream comes as words of 1, 2, 4 or 8 bytes, of which the low bits count (see `Compositions.drawn_words`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _less(words: Array, stream: Array | None, i: int) -> Any:
    return words[i] if stream is None else words[i] - np.uint64(stream[i])


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def pack(words: Array, stream: Array | None, mask: int, four: Array, two: Array, one: Array) -> None:
    """The planes of words, or of words - stream."""
    after_four = np.uint64(32 if four.size else 0)
    after_two = after_four + np.uint64(16 if two.size else 0)
    for i in range(four.size):
        four[i] = _less(words, stream, i) & mask & np.uint64(0xFFFFFFFF)
    for i in range(two.size):
        two[i] = ((_less(words, stream, i) & mask) >> after_four) & np.uint64(0xFFFF)
    for i in range(one.size):
        one[i] = ((_less(words, stream, i) & mask) >> after_two) & np.uint64(0xFF)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def unpack(four: Array, two: Array, one: Array, words: Array) -> None:
    after_four = np.uint64(32 if four.size else 0)
    after_two = after_four + np.uint64(16 if two.size else 0)
    if four.size:
        for i in range(words.size):
            words[i] = np.uint64(four[i])
    else:
        words[:] = 0
    for i in range(two.size):
        words[i] |= np.uint64(two[i]) << after_four
    for i in range(one.size):
        words[i] |= np.uint64(one[i]) << after_two


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def add_masked(mine: Array, theirs: Array, mask: int) -> None:
    """theirs = (mine + theirs) & mask."""
    for i in range(mine.size):
        theirs[i] = (mine[i] + theirs[i]) & mask


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def widen(stream: Array, mask: int, out: Array) -> None:
    for i in range(out.size):
        out[i] = np.uint64(stream[i]) & mask


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def add_streams(a: Array, b: Array, mask: int, out: Array) -> None:
    for i in range(out.size):
        out[i] = (np.uint64(a[i]) + np.uint64(b[i])) & mask
