"""Public harmonics and series sums, compiled: recurrences run over blocks that stay in the first cache."""

from __future__ import annotations

import numpy as np
from numba import njit

from secformer.mpc.kernels.taylor import COS, ROUND, SIN
from secformer.mpc.kernels.words import Array

BLOCK_N = 256  # elements whose recurrences stay in the first cache


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def turn(u: Array, bits: int, unit: float, cos: Array, sin: Array) -> None:
    half, down = np.uint64(1) << np.uint64(bits - 3), np.uint64(bits - 2)
    for i in range(u.size):
        quarter = (u[i] + half) >> down
        y = np.float64(np.int64(u[i] - (quarter << down))) * unit
        z = y * y
        s, c = SIN[7], COS[8]
        s = (((((((s * z + SIN[6]) * z + SIN[5]) * z + SIN[4]) * z + SIN[3]) * z + SIN[2]) * z + SIN[1]) * z
              + SIN[0]) * y
        c = (((((((c * z + COS[7]) * z + COS[6]) * z + COS[5]) * z + COS[4]) * z + COS[3]) * z + COS[2]) * z
             + COS[1]) * z + COS[0]
        odd, turned = quarter & np.uint64(1), quarter & np.uint64(3)
        first, second = (s, c) if odd else (c, s)
        cos[i] = -first if turned == 1 or turned == 2 else first
        sin[i] = -second if turned >= 2 else second


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def harmonics(c: Array, s: Array, count: int, one: float, out: Array) -> None:
    n = c.size
    c0, c1, s0, s1 = np.empty(BLOCK_N), np.empty(BLOCK_N), np.empty(BLOCK_N), np.empty(BLOCK_N)
    for start in range(0, n, BLOCK_N):
        w = min(n, start + BLOCK_N) - start
        first = c[start : start + w]
        for i in range(w):
            c0[i], c1[i], s0[i], s1[i] = 1.0, first[i], 0.0, s[start + i]
        for k in range(count):
            out_c, out_s = out[k, start : start + w], out[count + k, start : start + w]
            for i in range(w):
                twice = first[i] + first[i]
                out_c[i] = np.uint64(np.int64((c1[i] * one + ROUND) - ROUND))
                out_s[i] = np.uint64(np.int64((s1[i] * one + ROUND) - ROUND))
                next_c, next_s = twice * c1[i] - c0[i], twice * s1[i] - s0[i]
                c0[i], s0[i], c1[i], s1[i] = c1[i], s1[i], next_c, next_s


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def series(c: Array, s: Array, cos: Array, sin: Array, words: Array, out: Array) -> None:
    n = c.size
    functions, count = cos.shape
    c0, c1, s0, s1 = np.empty(BLOCK_N), np.empty(BLOCK_N), np.empty(BLOCK_N), np.empty(BLOCK_N)
    for start in range(0, n, BLOCK_N):
        w = min(n, start + BLOCK_N) - start
        first = c[start : start + w]
        for i in range(w):
            c0[i], c1[i], s0[i], s1[i] = 1.0, first[i], 0.0, s[start + i]
        for k in range(count):
            words_c, words_s = words[k, start : start + w], words[count + k, start : start + w]
            for f in range(functions):
                a, b, total = cos[f, k], sin[f, k], out[f, start : start + w]
                for i in range(w):
                    p = np.uint64(np.int64((a * c1[i] + b * s1[i] + ROUND) - ROUND))
                    q = np.uint64(np.int64((a * s1[i] - b * c1[i] + ROUND) - ROUND))
                    total[i] += p * words_c[i] + q * words_s[i]
            for i in range(w):
                twice = first[i] + first[i]
                next_c, next_s = twice * c1[i] - c0[i], twice * s1[i] - s0[i]
                c0[i], s0[i], c1[i], s1[i] = c1[i], s1[i], next_c, next_s
