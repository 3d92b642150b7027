"""Matrix products of few rows, compiled: the right matrix is read once, where it lies, at the memory's speed.

Nothing is copied: with few rows, a copy of the right matrix costs more than the product. It lies row by row, or column
by column where it is a transposed view; columns of a wider matrix are read within it. Letters n rows, k inner,
m columns, B matrices.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.lib.stride_tricks import as_strided

Array = Any
ROWS = 16                    # rows up to which this is faster than `products`, whose tiles want more
SUMS, LEAST = 2048, 512      # words of sums that stay in the first cache, for all rows; columns at a time at least
DEEP = 1024                  # words of a column that are read at a time, so that several rows find them in the cache
WORTH_SPLITTING = 1 << 20    # words of right matrices below which threads cost more than they bring


class Lines(NamedTuple):
    """Matrices in memory: line i of matrix b is flat[b * apart + i * step :], a row or, if `turned`, a column."""

    flat: Array
    apart: int
    step: int
    turned: bool

    def __repr__(self) -> str:
        return f"Lines(apart={self.apart}, step={self.step}, turned={self.turned})"  # what is in memory may be secret


def lines(b: Array) -> Lines:
    """The matrices b (B, k, m) as they lie; a copy where neither rows nor columns are lines of memory."""
    count, k, m = b.shape
    size = b.itemsize
    if b.flags.c_contiguous:
        return Lines(b.reshape(-1), k * m, m, False)
    apart, row, column = (0 if length == 1 else step for length, step in zip(b.shape, b.strides, strict=True))
    turned = row == size
    length, step, many = (k, column, m) if turned else (m, row, k)
    if not (turned or column == size or m == 1) or min(apart, step) < 0 or apart % size or step % size:
        return lines(np.ascontiguousarray(b))
    apart, step = apart // size, step // size
    return Lines(as_strided(b, ((count - 1) * apart + (many - 1) * step + length,), (size,)), apart, step, turned)


def product(a: Array, b: Array, pool: ThreadPoolExecutor | None, threads: int) -> Array:
    """(..., n, k) @ (..., k, m) of one type of word, in that type; columns are spread over threads."""
    batch, (n, k), m = a.shape[:-2], a.shape[-2:], b.shape[-1]
    out = np.zeros((*batch, n, m), dtype=a.dtype)
    if not out.size * k:
        return out
    left, right, sums = np.ascontiguousarray(a).reshape(-1, n, k), lines(b.reshape(-1, k, m)), out.reshape(-1, n, m)
    add = along_columns if right.turned else along_rows
    if pool is None or m < threads or sums.shape[0] * k * m < WORTH_SPLITTING:
        add(left, right.flat, right.apart, right.step, sums, 0, m)
        return out
    width = -(-m // threads)
    parts = [pool.submit(add, left, right.flat, right.apart, right.step, sums, j, min(m, j + width))
             for j in range(0, m, width)]
    for part in parts:
        part.result()
    return out


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def along_rows(a: Array, b: Array, apart: int, step: int, c: Array, start: int, stop: int) -> None:
    """c[:, :, start:stop] += a @ b there: a (B, n, k), c (B, n, m), b the flat of lines that are rows."""
    count, n, k = a.shape
    wide = max(LEAST, SUMS // n)
    for matrix in range(count):
        for first in range(start, stop, wide):
            w, at, p = min(stop, first + wide) - first, matrix * apart + first, 0
            while p + 4 <= k:  # four rows a time: sums are read and written once for all
                b0, b1 = b[at + p * step : at + p * step + w], b[at + (p + 1) * step : at + (p + 1) * step + w]
                b2, b3 = (b[at + (p + 2) * step : at + (p + 2) * step + w],
                          b[at + (p + 3) * step : at + (p + 3) * step + w])
                for i in range(n):
                    x0, x1, x2, x3 = a[matrix, i, p], a[matrix, i, p + 1], a[matrix, i, p + 2], a[matrix, i, p + 3]
                    out = c[matrix, i, first : first + w]
                    for j in range(w):
                        out[j] += x0 * b0[j] + x1 * b1[j] + x2 * b2[j] + x3 * b3[j]
                p += 4
            while p < k:
                b0 = b[at + p * step : at + p * step + w]
                for i in range(n):
                    x0, out = a[matrix, i, p], c[matrix, i, first : first + w]
                    for j in range(w):
                        out[j] += x0 * b0[j]
                p += 1


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def along_columns(a: Array, b: Array, apart: int, step: int, c: Array, start: int, stop: int) -> None:
    """As `along_rows`, of lines that are columns."""
    count, n, k = a.shape
    zero = a.dtype.type(0)
    for matrix in range(count):
        for low in range(0, k, DEEP):
            d, at, j = min(k, low + DEEP) - low, matrix * apart + low, start
            while j + 4 <= stop:  # four columns a time share what is read of a
                b0, b1 = b[at + j * step : at + j * step + d], b[at + (j + 1) * step : at + (j + 1) * step + d]
                b2, b3 = (b[at + (j + 2) * step : at + (j + 2) * step + d],
                          b[at + (j + 3) * step : at + (j + 3) * step + d])
                for i in range(n):
                    x, s0, s1, s2, s3 = a[matrix, i, low : low + d], zero, zero, zero, zero
                    for p in range(d):
                        s0 += x[p] * b0[p]
                        s1 += x[p] * b1[p]
                        s2 += x[p] * b2[p]
                        s3 += x[p] * b3[p]
                    out = c[matrix, i, j : j + 4]
                    out[0] += s0
                    out[1] += s1
                    out[2] += s2
                    out[3] += s3
                j += 4
            while j < stop:
                b0 = b[at + j * step : at + j * step + d]
                for i in range(n):
                    x, s0 = a[matrix, i, low : low + d], zero
                    for p in range(d):
                        s0 += x[p] * b0[p]
                    c[matrix, i, j] += s0
                j += 1
