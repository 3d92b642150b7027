"""Reference kernels on the array library alone.

Words are uint64 arrays (uint32 where a caller works mod 2^32). Letters: n elements or rows, k inner, m columns,
K harmonics. Floating point is used only through IEEE additions and multiplications, so that every backend, and so
both parties, compute the same public coefficients to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from secformer.mpc.backend import Backend
from secformer.mpc.kernels.compose import PLANES, STEP_BITS, Compositions, power_factors, whole_bytes
from secformer.mpc.kernels.limbs import product
from secformer.mpc.ring import mask

Array = Any

# Balanced limbs of 22, 21 and 21 bits: |limb| <= 2^21, so a float64 sum of k products is exact while k 2^42 <= 2^53.
LIMB_SHIFTS = (0, 22, 43)
EXACT_K = 2048
# Two balanced limbs of 16 bits for words mod 2^32: |limb| <= 2^15 and k 2^31 <= 2^53.
EXACT_K_NARROW = 1 << 22

_ZEROS = bytes(1 << 16)
_ROUND = 6755399441055744.0  # 1.5 * 2^52: adding and subtracting it rounds to the nearest even integer
# Taylor coefficients of sine and cosine; beyond y^16 the terms vanish below 2^-57 for |y| <= pi/4.
_SIN = tuple((-1.0) ** i / math.factorial(2 * i + 1) for i in range(8))
_COS = tuple((-1.0) ** i / math.factorial(2 * i) for i in range(9))
# Of the exponential; beyond y^11 they vanish below 2^-52 for y <= 1/4, and six squarings make e^16 of e^(1/4).
_EXP = tuple(1.0 / math.factorial(i) for i in range(12))
SQUARINGS = 6


class NumpyKernels(Compositions):
    """Kernels that need nothing but the array library."""

    name = "numpy"

    def __init__(self, backend: Backend):
        self.backend, self.xp = backend, backend.xp
        many = backend.threads > 1 and not backend.on_gpu
        self._pool = ThreadPoolExecutor(backend.threads) if many else None

    # ---- randomness -----------------------------------------------------------------------------------------------

    def keystream(self, key: bytes, block: int, nbytes: int) -> Array:
        """`nbytes` of the ChaCha20 keystream (RFC 8439, zero nonce) from 64-byte block number `block` on, as uint8."""
        cipher = Cipher(algorithms.ChaCha20(key, block.to_bytes(4, "little") + bytes(12)), mode=None).encryptor()
        out = np.empty(nbytes, dtype=np.uint8)
        view = memoryview(out)  # type: ignore[arg-type]
        for start in range(0, nbytes, len(_ZEROS)):
            part = view[start : start + len(_ZEROS)]
            cipher.update_into(_ZEROS if len(part) == len(_ZEROS) else _ZEROS[: len(part)], part)
        return self.backend.asarray(out)

    # ---- packing --------------------------------------------------------------------------------------------------

    def pack(self, words: Array, bits: int) -> Array:
        """The low `bits` bits of flat words, in whole bytes, as planes of 8, or 4, 2 and 1 bytes: (n * bytes,) uint8.

        Bits above are cut off: they are not covered by the mask of whoever opens `bits` bits, so they must not travel.
        """
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
        """The words behind `pack`, reduced mod 2^bits: (count,) uint64."""
        whole = whole_bytes(bits) == 8
        words = payload.view(np.uint64) if whole else self.joined(self.planes(payload, count, bits), count)
        return words & mask(bits) if bits % 8 else words

    def _view(self, payload: Array, dtype: Any) -> Array:
        """Bytes as wider numbers, copied where they are not aligned."""
        if self.backend.on_gpu:
            return (payload.copy() if payload.data.ptr % np.dtype(dtype).itemsize else payload).view(dtype)
        found = payload.view(dtype)
        return found if found.flags.aligned else payload.copy().view(dtype)

    # ---- products -------------------------------------------------------------------------------------------------

    def matmul(self, a: Array, b: Array, bits: int = 64) -> Array:
        """Exact (..., n, k) @ (..., k, m) of words mod 2^64, or mod 2^32 for uint32, by float64 limbs.

        `bits` says that the caller wants the product mod 2^bits only; what stands above is then anything.
        """
        if not self.backend.on_gpu:
            return product(a, b, min(bits, 8 * a.dtype.itemsize), self._pool, self.backend.threads)
        return self.plain_matmul(a, b)

    def plain_matmul(self, a: Array, b: Array) -> Array:
        """The same in whole arrays, three limbs a word whatever is wanted: any array library, and the reference."""
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
        """cos and sin of 2 pi u / 2^bits for u < 2^bits (bits <= 52), the same bits on every backend. Error < 2^-51."""
        quarter = (u + np.uint64(1 << (bits - 3))) >> np.uint64(bits - 2)
        rest = (u - (quarter << np.uint64(bits - 2))).view(np.int64)
        y = rest.astype(np.float64) * (2.0 * math.pi / 2.0**bits)
        z = y * y
        s, c = self._horner(_SIN, z) * y, self._horner(_COS, z)
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
        """Words of cos(k t), then of sin(k t), k = 1..count, t = 2 pi r / 2^bits, with `frac` fractional bits:
        (2 count, n)."""
        out = self.xp.empty((2 * count, r.size), dtype=np.uint64)
        one = 2.0**frac
        for k, (c, s) in enumerate(self._multiples(r, bits, count)):
            out[k] = self._rounded(c * one)
            out[count + k] = self._rounded(s * one)
        return out

    def series(self, u: Array, bits: int, cos: np.ndarray, sin: np.ndarray, words: Array, frac: int) -> Array:
        """One party's sum over the harmonics of x = u - r for F functions: (F, n) words.

        u (n,) opened; cos, sin (F, K) coefficients; words (2K, n) this party's shares of cos(k r), sin(k r).
        """
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
        return ((x + _ROUND) - _ROUND).astype(np.int64).view(np.uint64)

    # ---- powers of e ------------------------------------------------------------------------------------------------

    def growth(self, v: Array, frac: int) -> Array:
        """e^(v / 2^frac) for v <= 2^(frac + 4), the same bits on every backend. Relative error < 2^-45."""
        e = self._horner(_EXP, v.view(np.int64).astype(np.float64) * 2.0 ** -(frac + SQUARINGS))
        for _ in range(SQUARINGS):
            e = e * e
        return e

    def powers(self, r: Array, bits: int, period_bits: int, top: int, frac: int) -> Array:
        """The tables of `ExpMask`, (entries, n) words of e^(16 U - r) with `frac` fractional bits."""
        down = bits - period_bits + STEP_BITS
        up = np.uint64(1 << down) - (r & mask(down))
        e, factors = self.growth(up, bits - period_bits), power_factors(period_bits, frac)
        out = self.xp.empty((factors.size, r.size), dtype=np.uint64)
        entry, columns = (r >> np.uint64(down)).astype(np.int64), self.xp.arange(r.size)
        for m, factor in enumerate(factors.tolist()):
            chosen = self.xp.where(up <= np.uint64(top), 2.0**frac, factor) if m == 1 else factor
            out[(entry + m) % factors.size, columns] = self._rounded(e * chosen)
        return out

    def exponential(self, u: Array, bits: int, period_bits: int, table: Array, frac: int) -> Array:
        """One party's shares of e^x for x = u - r: table (entries, n) its shares of `powers`, `frac` the fractional
        bits of the public factor. u (n,) opened -> (n,) words."""
        down = bits - period_bits + STEP_BITS
        e = self.growth(u & mask(down), bits - period_bits)
        return self._rounded(e * 2.0**frac) * table[(u >> np.uint64(down)).astype(np.int64), self.xp.arange(u.size)]

    # ---- comparison tables ----------------------------------------------------------------------------------------

    def flip_bits(self, tables: Array, block: Array) -> None:
        """Flips bit `block[i]` of row i in place: tables (n, bytes) uint8."""
        rows = self.xp.arange(block.size)
        tables[rows, (block >> np.uint64(3)).astype(np.int64)] ^= np.uint8(1) << (block & np.uint64(7)).astype(np.uint8)

    def look_up(self, tables: Array, v: Array) -> tuple[Array, Array]:
        """Bit v[i] of row i, and the parity of the bits above it: this party's xor shares of [v = r] and [v < r].

        tables (n, bytes) uint8, v (n,) uint64 -> two (n,) uint8.
        """
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
        """Row i's entry e[i]: tables (n, entries, columns), e (n,) -> (columns, n)."""
        return self.xp.ascontiguousarray(tables[self.xp.arange(e.size), e.astype(np.int64)].T)
