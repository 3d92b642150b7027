"""Exact products of words on the CPU by float64 BLAS: balanced limbs, block by block, as few as the width needs.

A word mod 2^64 is cut into limbs |limb| <= 2^(b - 1) of b bits each. A block of limbs is made in the second cache,
multiplied there and added to integers, so that no limb matrix is ever written to memory. Letters: n rows, k inner,
m columns.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from secformer.mpc.kernels.blas import one_thread
from secformer.mpc.kernels.threads import threaded

Array = Any
THIN = 8        # rows up to which plain products of words are quicker than making limbs of the right matrix
COLUMNS = 1024  # columns of a block of limbs, so that the block stays in the second cache


@dataclass(frozen=True)
class Split:
    """Limbs of so many bits, the lowest first; float64 sums of `inner` products of two of them are exact."""

    bits: tuple[int, ...]
    inner: int

    @property
    def shifts(self) -> tuple[int, ...]:
        return tuple(sum(self.bits[:i]) for i in range(len(self.bits)))

    def limbs(self, words: Array) -> list[Array]:
        """The limbs of uint64 words as float64, contiguous; summed times 2^shift they are the word mod 2^sum(bits)."""
        found, carry = [], 0
        for bits, shift in zip(self.bits, self.shifts, strict=True):
            limb = words + np.uint64(carry)  # rounds the limbs below to the nearest
            limb <<= np.uint64(64 - shift - bits)
            signed = limb.view(np.int64)
            signed >>= np.int64(64 - bits)
            found.append(signed.astype(np.float64))
            carry += 1 << (shift + bits - 1)
        return found

    def pairs(self, width: int) -> list[tuple[int, int, int]]:
        """(i, j, shift) of the products of limbs that count mod 2^width."""
        found = [(i, j, self.shifts[i] + self.shifts[j]) for i in range(len(self.bits)) for j in range(len(self.bits))]
        return [pair for pair in found if pair[2] < width]


ONE = Split((24,), 1 << 7)             # |limb| <= 2^23, and 2^46 2^7 = 2^53
TWO_SHORT = Split((16, 16), 1 << 10)   # longer sums would be exact too, but leave the cache
TWO = Split((24, 24), 1 << 7)
THREE = Split((22, 21, 21), 1 << 9)    # exact to 2^11


def split_for(width: int) -> Split:
    """The fewest products of limbs for words mod 2^width."""
    if width <= 24:
        return ONE
    if width <= 32:
        return TWO_SHORT
    return TWO if width <= 48 else THREE


def product(a: Array, b: Array, width: int, pool: ThreadPoolExecutor | None = None, threads: int = 1) -> Array:
    """(..., n, k) @ (..., k, m), right mod 2^width, of uint64 or uint32 words and in their type."""
    if a.shape[-2] <= THIN:
        return np.einsum("...nk,...km->...nm", a, b)

    def part(x: Array, y: Array, z: Array, start: int, stop: int) -> None:
        _add_product(x, y[:, start:stop], z[:, start:stop], width)

    with one_thread() as blas:
        return threaded(part, a, b, pool if blas.found else None, threads)


def _add_product(a: Array, b: Array, out: Array, width: int) -> None:
    """out += a @ b mod 2^width."""
    split = split_for(width)
    pairs, inner = split.pairs(width), split.inner
    (n, k), m = a.shape, b.shape[1]
    levels = sorted({shift for _, _, shift in pairs})
    sums = np.zeros((len(levels), n, m), dtype=np.int64)
    scratch = np.empty((n, min(m, COLUMNS)))
    for start in range(0, k, inner):
        x = split.limbs(a[:, start : start + inner].astype(np.uint64, copy=False))
        for column in range(0, m, COLUMNS):
            y = split.limbs(b[start : start + inner, column : column + COLUMNS].astype(np.uint64, copy=False))
            found = scratch[:, : y[0].shape[1]]
            for i, j, shift in pairs:
                np.matmul(x[i], y[j], out=found)
                total = sums[levels.index(shift), :, column : column + COLUMNS]
                np.add(total, found, out=total, dtype=np.int64, casting="unsafe")
    for level, total in zip(levels, sums, strict=True):
        out += (total.view(np.uint64) << np.uint64(level)).astype(out.dtype, copy=False)
