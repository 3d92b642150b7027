"""The reference: kernels on the array library alone, NumPy or CuPy.

Floating point is used only through IEEE additions and multiplications, so that every backend, and so both parties,
compute the same public coefficients to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from secformer.mpc.backend import Backend
from secformer.mpc.kernels import points
from secformer.mpc.kernels.interface import Kernels
from secformer.mpc.kernels.limbs import product
from secformer.mpc.kernels.points import PointKeys
from secformer.mpc.kernels.tables import STEP_BITS, power_factors
from secformer.mpc.kernels.taylor import COS, EXP, ROUND, SIN, SQUARINGS
from secformer.mpc.kernels.words import PLANES, Array, Guard, Key, whole_bytes
from secformer.mpc.ring import mask

# Balanced limbs of 22, 21 and 21 bits: |limb| <= 2^21, so a float64 sum of k products is exact while k 2^42 <= 2^53.
LIMB_SHIFTS = (0, 22, 43)
EXACT_K = 2048
# Two balanced limbs of 16 bits for words mod 2^32: |limb| <= 2^15 and k 2^31 <= 2^53.
EXACT_K_NARROW = 1 << 22

POINTS_AT_ONCE = 4  # tokens whose trees fill a core's cache

_ZEROS = bytes(1 << 16)


class NumpyKernels(Kernels):
    """Kernels that need nothing but the array library."""

    name = "numpy"

    def __init__(self, backend: Backend):
        self.backend, self.xp = backend, backend.xp
        many = backend.threads > 1 and not backend.on_gpu
        self._pool = ThreadPoolExecutor(backend.threads) if many else None

    # ---- randomness -----------------------------------------------------------------------------------------------

    def keystream(self, key: Key, block: int, nbytes: int) -> Array:
        cipher = Cipher(algorithms.ChaCha20(key, block.to_bytes(4, "little") + bytes(12)), mode=None).encryptor()
        out = np.empty(nbytes, dtype=np.uint8)
        view = memoryview(out)  # type: ignore[arg-type]
        for start in range(0, nbytes, len(_ZEROS)):
            part = view[start : start + len(_ZEROS)]
            cipher.update_into(_ZEROS if len(part) == len(_ZEROS) else _ZEROS[: len(part)], part)
        return self.backend.asarray(out)

    def points(self, keys: PointKeys, out: Array) -> None:
        step = len(keys) if self.backend.on_gpu else POINTS_AT_ONCE
        for first in range(0, len(keys), step):
            points.rows(self.xp, keys, first, out[first : first + step])

    # ---- packing --------------------------------------------------------------------------------------------------

    def pack(self, words: Array, bits: int) -> Array:
        nbytes = whole_bytes(bits)
        words = words.reshape(-1)
        if bits % 8:
            words = words & words.dtype.type((1 << bits) - 1)
        if nbytes == 8:
            return self.xp.ascontiguousarray(words.astype(np.uint64, copy=False)).view(np.uint8)
        out = self.xp.empty(words.size * nbytes, dtype=np.uint8)
        start, shift = 0, 0
        for width, dtype in PLANES:
            if nbytes & width:
                end = start + words.size * width
                plane = (words >> words.dtype.type(shift) if shift else words).astype(dtype)
                out[start:end] = plane.view(np.uint8)
                start, shift = end, shift + 8 * width
        return out

    def unpack(self, payload: Array, count: int, bits: int) -> Array:
        whole = whole_bytes(bits) == 8
        words = self._view(payload, np.uint64) if whole else self.joined(self.planes(payload, count, bits), count)
        return words & mask(bits) if bits % 8 else words

    def _view(self, payload: Array, dtype: Any) -> Array:
        if self.backend.on_gpu:
            return (payload.copy() if payload.data.ptr % np.dtype(dtype).itemsize else payload).view(dtype)
        found = payload.view(dtype)
        return found if found.flags.aligned else payload.copy().view(dtype)

    # ---- products -------------------------------------------------------------------------------------------------

    def matmul(self, a: Array, b: Array, bits: int = 64) -> Array:
        if not self.backend.on_gpu:
            return product(a, b, min(bits, 8 * a.dtype.itemsize), self._pool, self.backend.threads)
        return self.plain_matmul(a, b)

    def plain_matmul(self, a: Array, b: Array) -> Array:
        """The same in whole arrays, three limbs per word whatever is wanted: any array library, and the reference."""
        narrow = a.dtype == np.uint32
        limit = EXACT_K_NARROW if narrow else EXACT_K
        multiply = self._matmul32 if narrow else self._matmul64
        k = a.shape[-1]
        out = multiply(a[..., :limit], b[..., :limit, :])
        for start in range(limit, k, limit):
            out += multiply(a[..., start : start + limit], b[..., start : start + limit, :])
        return out

    def _matmul64(self, a: Array, b: Array) -> Array:
        x, y = self._limbs64(a), self._limbs64(b)
        low = self._int(x[0] @ y[0])
        middle = self._int(x[0] @ y[1]) + self._int(x[1] @ y[0])
        high = self._int(x[0] @ y[2]) + self._int(x[2] @ y[0]) + (self._int(x[1] @ y[1]) << np.uint64(1))
        return low + (middle << np.uint64(LIMB_SHIFTS[1])) + (high << np.uint64(LIMB_SHIFTS[2]))

    def _matmul32(self, a: Array, b: Array) -> Array:
        x, y = self._limbs32(a), self._limbs32(b)
        middle = self._int(x[0] @ y[1]) + self._int(x[1] @ y[0])
        return (self._int(x[0] @ y[0]) + (middle << np.uint64(16))).astype(np.uint32)

    def _limbs64(self, words: Array) -> list[Array]:
        signed, limbs = words.view(np.int64), []
        for bits in (22, 21):
            low = (signed << np.int64(64 - bits)) >> np.int64(64 - bits)
            limbs.append(low.astype(np.float64))
            signed = (signed >> np.int64(bits)) + ((signed >> np.int64(bits - 1)) & np.int64(1))
        return [*limbs, ((signed << np.int64(43)) >> np.int64(43)).astype(np.float64)]

    def _limbs32(self, words: Array) -> list[Array]:
        signed = words.view(np.int32)
        low = (signed << np.int32(16)) >> np.int32(16)
        high = ((signed - low) >> np.int32(16)).astype(np.float64)
        return [low.astype(np.float64), high]

    def _int(self, x: Array) -> Array:
        return x.astype(np.int64).view(np.uint64)

    # ---- trigonometry of the public part --------------------------------------------------------------------------

    def turn(self, u: Array, bits: int) -> tuple[Array, Array]:
        quarter = (u + np.uint64(1 << (bits - 3))) >> np.uint64(bits - 2)
        rest = (u - (quarter << np.uint64(bits - 2))).view(np.int64)
        y = rest.astype(np.float64) * (2.0 * math.pi / 2.0**bits)
        z = y * y
        s, c = self._horner(SIN, z) * y, self._horner(COS, z)
        odd, turned = (quarter & np.uint64(1)) == 1, quarter & np.uint64(3)
        cos, sin = self.xp.where(odd, s, c), self.xp.where(odd, c, s)
        cos = self.xp.where((turned == 1) | (turned == 2), -cos, cos)
        return cos, self.xp.where(turned >= 2, -sin, sin)

    def _horner(self, coefficients: Sequence[float], z: Array) -> Array:
        total = self.xp.full_like(z, coefficients[-1])
        for c in coefficients[-2::-1]:
            total = total * z + c
        return total

    def harmonics(self, r: Array, bits: int, count: int, frac: int) -> Array:
        out = self.xp.empty((2 * count, r.size), dtype=np.uint64)
        one = 2.0**frac
        for k, (c, s) in enumerate(self._multiples(r, bits, count)):
            out[k] = self._rounded(c * one)
            out[count + k] = self._rounded(s * one)
        return out

    def series(self, u: Array, bits: int, cos: np.ndarray, sin: np.ndarray, words: Array, frac: int) -> Array:
        functions, count = cos.shape
        out = self.xp.zeros((functions, u.size), dtype=np.uint64)
        one = 2.0**frac
        for k, (c, s) in enumerate(self._multiples(u, bits, count)):
            for f in range(functions):
                a, b = float(cos[f, k]) * one, float(sin[f, k]) * one
                out[f] += self._rounded(a * c + b * s) * words[k]
                out[f] += self._rounded(a * s - b * c) * words[count + k]
        return out

    def _multiples(self, u: Array, bits: int, count: int) -> Any:
        """cos(k t), sin(k t) for k = 1..count by the three-term recurrence."""
        c, s = self.turn(u, bits)
        twice = c + c
        before_c, before_s = self.xp.ones_like(c), self.xp.zeros_like(s)
        for _ in range(count):
            yield c, s
            before_c, c = c, twice * c - before_c
            before_s, s = s, twice * s - before_s

    def _rounded(self, x: Array) -> Array:
        return ((x + ROUND) - ROUND).astype(np.int64).view(np.uint64)

    # ---- powers of e ------------------------------------------------------------------------------------------------

    def growth(self, v: Array, frac: int) -> Array:
        e = self._horner(EXP, v.view(np.int64).astype(np.float64) * 2.0 ** -(frac + SQUARINGS))
        for _ in range(SQUARINGS):
            e = e * e
        return e

    def powers(self, r: Array, bits: int, period_bits: int, top: int, frac: int) -> Array:
        down = bits - period_bits + STEP_BITS
        up = np.uint64(1 << down) - (r & mask(down))
        e, factors = self.growth(up, bits - period_bits), power_factors(period_bits, frac)
        out = self.xp.empty((factors.size, r.size), dtype=np.uint64)
        entry, columns = (r >> np.uint64(down)).astype(np.int64), self.xp.arange(r.size)
        for m, factor in enumerate(factors.tolist()):
            chosen = self.xp.where(up <= np.uint64(top), 2.0**frac, factor) if m == 1 else factor
            out[(entry + m) % factors.size, columns] = self._rounded(e * chosen)
        return out

    def exponential(self, u: Array, bits: int, period_bits: int, table: Array, frac: int, out: Array) -> None:
        down = bits - period_bits + STEP_BITS
        e = self.growth(u & mask(down), bits - period_bits)
        chosen = table[(u >> np.uint64(down)).astype(np.int64), self.xp.arange(u.size)]
        out[...] = self._rounded(e * 2.0**frac) * chosen

    # ---- comparison tables ----------------------------------------------------------------------------------------

    def flip_bits(self, tables: Array, block: Array) -> None:
        rows = self.xp.arange(block.size)
        tables[rows, (block >> np.uint64(3)).astype(np.int64)] ^= np.uint8(1) << (block & np.uint64(7)).astype(np.uint8)

    def look_up(self, tables: Array, v: Array) -> tuple[Array, Array]:
        rows, size = self.xp.arange(v.size), tables.shape[1]
        at = (v >> np.uint64(3)).astype(np.int64)
        own, low = tables[rows, at], (v & np.uint64(7)).astype(np.uint8)
        equal = (own >> low) & np.uint8(1)
        above = (own.astype(np.uint16) >> (low.astype(np.uint16) + np.uint16(1))).astype(np.uint8)
        beyond = self.xp.where(self.xp.arange(size)[None, :] > at[:, None], tables, np.uint8(0))
        folded = above ^ self.xp.bitwise_xor.reduce(beyond, axis=1)
        for shift in (4, 2, 1):
            folded = folded ^ (folded >> np.uint8(shift))
        return equal, folded & np.uint8(1)

    def gather(self, tables: Array, e: Array) -> Array:
        return self.xp.ascontiguousarray(tables[self.xp.arange(e.size), e.astype(np.int64)].T)

    # ---- guards ---------------------------------------------------------------------------------------------------

    def guard_tables(self, r: Array, guards: Sequence[Guard], negated: bool = False) -> Array:
        own = np.uint64(0) - r if negated else r
        return self.backend.joined([self._guard_table(own, *guard) for guard in guards])

    def _guard_table(self, r: Array, shift: int, low: int, span: int) -> Array:
        one, low_bits = np.uint64(1), mask(shift)
        start = (r + np.uint64(low)) & mask(shift + 6)  # where the interval lies in u
        first, inside = start >> np.uint64(shift), start & low_bits
        end = (inside + np.uint64(span + 1)) >> np.uint64(shift)  # parts that end before it, counted from `first`
        good = (one << end) - (one << (inside != 0).astype(np.uint64))
        return ~((good << first) | (good >> ((np.uint64(64) - first) & np.uint64(63))))

    def breaches(self, tables: Array, u: Array, shifts: Sequence[int], weights: Array, rows: int) -> Array:
        u, found = u.reshape(-1), self.xp.zeros(rows, dtype=np.uint64)
        each = weights.reshape(len(shifts), u.size)
        for shift, table, weight in zip(shifts, self._view(tables, np.uint64).reshape(each.shape), each, strict=True):
            failed = np.uint64(0) - ((table >> ((u >> np.uint64(shift)) & np.uint64(63))) & np.uint64(1))
            found ^= self._xored((failed & weight).reshape(rows, -1))
        return found

    def _xored(self, words: Array) -> Array:
        """Each row's words, xored: (rows, n) -> (rows,). In halves, because CuPy has no such reduction."""
        while (n := words.shape[1]) > 1:
            half = n // 2
            rest = words[:, 2 * half :]
            words = words[:, :half] ^ words[:, half : 2 * half]
            if rest.shape[1]:
                words[:, :1] ^= rest
        return words[:, 0] if words.shape[1] else self.xp.zeros(words.shape[0], dtype=np.uint64)
