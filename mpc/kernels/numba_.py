"""The hottest loops compiled for the CPU by numba: same names, same results, no interpreter lock held.

One call uses one core; a matrix product splits its columns over the threads that the backend allows this party.
Compiled code is cached on disk, so the first use of a new installation costs some seconds, which a line on stderr says
(see `notice`); later ones cost none.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from secformer.mpc.kernels import numba_chacha, numba_compare, numba_powers, numba_products, numba_words
from secformer.mpc.kernels.compose import STEP_BITS, outcome_patterns, outcomes, power_factors, whole_bytes
from secformer.mpc.kernels.notice import announce
from secformer.mpc.kernels.numpy_ import _COS, _ROUND, _SIN, SQUARINGS, NumpyKernels
from secformer.mpc.kernels.parts import products
from secformer.mpc.ring import mask

Array = Any
BLOCK_N = 256  # elements whose recurrences stay in the first cache

announce(__name__, *(m.__name__ for m in (numba_chacha, numba_compare, numba_powers, numba_products, numba_words)))


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def _turn(u: Array, bits: int, unit: float, cos: Array, sin: Array) -> None:
    half, down = np.uint64(1) << np.uint64(bits - 3), np.uint64(bits - 2)
    for i in range(u.size):
        quarter = (u[i] + half) >> down
        y = np.float64(np.int64(u[i] - (quarter << down))) * unit
        z = y * y
        s, c = _SIN[7], _COS[8]
        s = (((((((s * z + _SIN[6]) * z + _SIN[5]) * z + _SIN[4]) * z + _SIN[3]) * z + _SIN[2]) * z + _SIN[1]) * z
              + _SIN[0]) * y
        c = (((((((c * z + _COS[7]) * z + _COS[6]) * z + _COS[5]) * z + _COS[4]) * z + _COS[3]) * z + _COS[2]) * z
             + _COS[1]) * z + _COS[0]
        odd, turned = quarter & np.uint64(1), quarter & np.uint64(3)
        first, second = (s, c) if odd else (c, s)
        cos[i] = -first if turned == 1 or turned == 2 else first
        sin[i] = -second if turned >= 2 else second


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def _harmonics(c: Array, s: Array, count: int, one: float, out: Array) -> None:
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
                out_c[i] = np.uint64(np.int64((c1[i] * one + _ROUND) - _ROUND))
                out_s[i] = np.uint64(np.int64((s1[i] * one + _ROUND) - _ROUND))
                next_c, next_s = twice * c1[i] - c0[i], twice * s1[i] - s0[i]
                c0[i], s0[i], c1[i], s1[i] = c1[i], s1[i], next_c, next_s


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def _series(c: Array, s: Array, cos: Array, sin: Array, words: Array, out: Array) -> None:
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
                    p = np.uint64(np.int64((a * c1[i] + b * s1[i] + _ROUND) - _ROUND))
                    q = np.uint64(np.int64((a * s1[i] - b * c1[i] + _ROUND) - _ROUND))
                    total[i] += p * words_c[i] + q * words_s[i]
            for i in range(w):
                twice = first[i] + first[i]
                next_c, next_s = twice * c1[i] - c0[i], twice * s1[i] - s0[i]
                c0[i], s0[i], c1[i], s1[i] = c1[i], s1[i], next_c, next_s


class NumbaKernels(NumpyKernels):
    """Compiled CPU kernels; what is not here is inherited from the reference."""

    name = "numba"
    chunk = 1 << 15  # so many that Python's part of a step is small

    def matmul(self, a: Array, b: Array, bits: int = 64) -> Array:
        low, (a, b) = bits <= numba_products.LOW_BITS, map(np.ascontiguousarray, (a, b))
        return products(lambda *part: numba_products.multiply(*part, low), a, b, self._pool, self.backend.threads)

    def pack(self, words: Array, bits: int) -> Array:
        nbytes, flat = whole_bytes(bits), words.reshape(-1)
        if nbytes == 8 or flat.dtype != np.uint64:
            return super().pack(words, bits)
        out = np.empty(flat.size * nbytes, dtype=np.uint8)
        numba_words.pack(flat, mask(bits), self._planes(out, flat.size, bits))
        return out

    def unpack(self, payload: Array, count: int, bits: int) -> Array:
        if whole_bytes(bits) == 8:
            return super().unpack(payload, count, bits)
        words = np.empty(count, dtype=np.uint64)
        numba_words.unpack(self._planes(payload, count, bits), mask(bits), words)
        return words

    def _planes(self, data: Array, count: int, bits: int, unit: int = 1) -> numba_words.Planes:
        four, two, one = self.planes(data, count, bits, unit)
        return four, two, one

    def turn(self, u: Array, bits: int) -> tuple[Array, Array]:
        cos, sin = np.empty(u.size), np.empty(u.size)
        _turn(u, bits, 2.0 * math.pi / 2.0**bits, cos, sin)
        return cos, sin

    def harmonics(self, r: Array, bits: int, count: int, frac: int) -> Array:
        c, s = self.turn(r, bits)
        out = np.empty((2 * count, r.size), dtype=np.uint64)
        _harmonics(c, s, count, 2.0**frac, out)
        return out

    def series(self, u: Array, bits: int, cos: np.ndarray, sin: np.ndarray, words: Array, frac: int) -> Array:
        c, s = self.turn(u, bits)
        out = np.zeros((cos.shape[0], u.size), dtype=np.uint64)
        one = 2.0**frac
        cos, sin = np.ascontiguousarray(cos) * one, np.ascontiguousarray(sin) * one
        _series(c, s, cos, sin, np.ascontiguousarray(words), out)
        return out

    # ---- powers of e ------------------------------------------------------------------------------------------------

    def growth(self, v: Array, frac: int) -> Array:
        out = np.empty(v.size)
        numba_powers.growth(v, 2.0 ** -(frac + SQUARINGS), out)
        return out

    def powers(self, r: Array, bits: int, period_bits: int, top: int, frac: int) -> Array:
        down, factors = bits - period_bits + STEP_BITS, power_factors(period_bits, frac)
        out = np.empty((factors.size, r.size), dtype=np.uint64)
        unit = 2.0 ** -(bits - period_bits + SQUARINGS)
        numba_powers.powers(r, np.uint64(down), unit, np.uint64(top), factors, 2.0**frac, out)
        return out

    def exponential(self, u: Array, bits: int, period_bits: int, table: Array, frac: int) -> Array:
        out = np.empty(u.size, dtype=np.uint64)
        unit = 2.0 ** -(bits - period_bits + SQUARINGS)
        numba_powers.exponential(u, np.uint64(bits - period_bits + STEP_BITS), unit, table, 2.0**frac, out)
        return out

    # ---- masks --------------------------------------------------------------------------------------------------

    def keystream(self, key: bytes, block: int, nbytes: int) -> Array:
        out = np.empty(-(-nbytes // 4), dtype=np.uint32)
        numba_chacha.keystream(_words(key), block, out)
        return out.view(np.uint8)[:nbytes]

    def uniform(self, key: bytes, block: int, count: int, bits: int) -> Array:
        out = np.empty(count, dtype=np.uint64)
        numba_chacha.uniform(_words(key), block, whole_bytes(bits), mask(bits), out)
        return out

    def combined(
        self, keys: tuple[bytes, bytes], count: int, bits: int, xor: bool = False, carries: bool = False
    ) -> Array:
        if xor:
            return super().combined(keys, count, bits, xor)
        out = np.empty(count, dtype=np.uint64)
        numba_chacha.combined(*map(_words, keys), whole_bytes(bits), mask(bits), mask(64 if carries else bits), out)
        return out

    def correction(self, key: bytes, value: Array, bits: int, xor: bool = False) -> Array:
        flat, nbytes = value.reshape(-1), whole_bytes(bits)
        if nbytes == 8 or value.dtype != (np.uint8 if xor else np.uint64):
            return super().correction(key, value, bits, xor)
        if xor:
            out = np.empty(flat.size, dtype=np.uint8)
            numba_chacha.correction_xor(_words(key), flat, out)
        else:
            out = np.empty(flat.size * nbytes, dtype=np.uint8)
            numba_chacha.correction(_words(key), nbytes, flat, mask(bits), self._planes(out, flat.size, bits))
        return out

    def opened(self, mine: Array, payload: Array, bits: int, xor: bool = False) -> Array:
        if xor or whole_bytes(bits) == 8:  # whole words come as they are: the payload is the peer's
            return super().opened(mine, payload, bits, xor)
        total = np.empty(mine.size, dtype=np.uint64)
        numba_words.add(mine.reshape(-1), self._planes(payload, mine.size, bits), mask(bits), total)
        return total

    # ---- lifts ----------------------------------------------------------------------------------------------------

    def wraps(self, r: Array, window: int) -> Array:
        out = np.empty(2 * r.size, dtype=np.uint64)
        numba_words.wraps(r, np.uint64(window), out)
        return out

    def lifted(self, u: Array, z: Array, masked: Array, wraps: Array | None, window: int, first: bool) -> Array:
        if wraps is None:
            return super().lifted(u, z, masked, wraps, window, first)
        out = np.empty_like(u)
        numba_words.lifted(u, z, masked, wraps, np.uint64(window), mask(64 if first else 0), out)
        return out

    # ---- comparison tables ----------------------------------------------------------------------------------------

    def flip_bits(self, tables: Array, block: Array) -> None:
        numba_compare.flip_bits(tables, block)

    def look_up(self, tables: Array, v: Array) -> tuple[Array, Array]:
        equal, less = np.empty(v.size, dtype=np.uint8), np.empty(v.size, dtype=np.uint8)
        numba_compare.look_up(_widest(tables), v, equal, less)
        return equal, less

    def outcome(self, tables: Array, v: Array, down: int, bits: int, place: int, last: bool, share: Array) -> None:
        numba_compare.outcome(_widest(tables), v, np.uint64(down), mask(bits), np.uint64(place), last, share)

    def rectified(self, tables: Array, e: Array, u: Array, r: Array, window: int, first: bool) -> Array:
        out = np.empty(e.size, dtype=np.uint64)
        numba_compare.rectified(tables, e, u, r, np.uint64(window - 1), np.uint64(1 if first else 0), out)
        return out

    def pick(self, tables: Array, e: Array, place: int, share: Array) -> None:
        numba_compare.pick(tables, e, np.uint64(place), share)

    def outcome_rows(self, r: Array, alpha: Array, window: int, blocks: int) -> Array:
        patterns = outcome_patterns(blocks)
        out = np.empty((r.size, patterns.shape[1]), dtype=np.uint8)
        numba_compare.outcome_rows(r, alpha, patterns, np.uint64(window - 1), np.uint64(2 * blocks - 1), out)
        return out.reshape(-1)

    def outcome_tables(self, r: Array, alpha: Array, window: int, blocks: int, columns: int) -> Array:
        below = outcomes(blocks)
        out = np.empty(r.size * below.size * columns, dtype=np.uint64)
        wrap = np.uint64((1 << window) % 2**64 if columns == 3 else 0)
        numba_compare.outcome_tables(r, alpha, below, np.uint64(window - 1), wrap, columns, out)
        return out


def _widest(rows: Array) -> Array:
    """Rows of bytes as rows of words, where they are long enough."""
    return rows.view(np.uint64) if rows.shape[1] % 8 == 0 else rows


def _words(key: bytes) -> Array:
    return np.frombuffer(key, dtype="<u4")
