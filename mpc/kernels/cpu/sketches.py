"""Inner products of rows with few public vectors, compiled, in one pass over the rows (see `Kernels.sketches`)."""

from __future__ import annotations

import numpy as np
from numba import njit

from secformer.mpc.kernels.cpu.chacha import Array

STEP = 2048  # columns at a time: the vectors' part stays in a core's cache


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def sketches(rows: Array, start: int, left: Array, right: Array, both: Array, out: Array) -> None:
    """rows (n, C); left, right, both (R, V); out (n, 3 R + 1), which is set."""
    out[:] = np.uint64(0)
    vectors, columns = left.shape
    for at in range(0, columns, STEP):
        end = min(columns, at + STEP)
        for n in range(rows.shape[0]):
            x, total = rows[n, start + at : start + end], np.uint64(0)
            for i in range(x.size):
                total += x[i]
            out[n, 3 * vectors] += total
            for v in range(vectors):
                a, b, c = left[v, at:end], right[v, at:end], both[v, at:end]
                with_a, with_b, with_c = np.uint64(0), np.uint64(0), np.uint64(0)
                for i in range(x.size):
                    with_a += a[i] * x[i]
                    with_b += b[i] * x[i]
                    with_c += c[i] * x[i]
                out[n, v] += with_a
                out[n, vectors + v] += with_b
                out[n, 2 * vectors + v] += with_c
