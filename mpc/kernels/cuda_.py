"""Raw CUDA kernels through CuPy: same names, same results as the NumPy reference. The source is `kernels.cu`."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import cupy as cp
import numpy as np

from secformer.mpc.backend import Backend
from secformer.mpc.kernels.numpy_ import NumpyKernels

Array = Any
THREADS = 256
TILE = 16
OPTIONS = ("--std=c++14", "-fmad=false")
NAMES = ("keystream", "matmul64", "matmul32", "harmonics", "series", "look_up", "truncated")


class CudaKernels(NumpyKernels):
    """GPU kernels; what is not here runs as CuPy array operations inherited from the reference."""

    name = "cuda"

    def __init__(self, backend: Backend):
        super().__init__(backend)
        module = cp.RawModule(code=files(__package__).joinpath("kernels.cu").read_text(), options=OPTIONS)
        self._kernel = {name: module.get_function(name) for name in NAMES}

    def _launch(self, name: str, n: int, *args: Any) -> None:
        if n:
            self._kernel[name]((-(-n // THREADS),), (THREADS,), args)

    def keystream(self, key: bytes, block: int, nbytes: int) -> Array:
        blocks = -(-nbytes // 64)
        out = cp.empty(blocks * 64, dtype=np.uint8)
        words = cp.asarray(np.frombuffer(key, dtype=np.uint32))
        self._launch("keystream", blocks, words, np.uint32(block), np.uint64(blocks), out)
        return out[:nbytes]

    def matmul(self, a: Array, b: Array) -> Array:
        batch, (n, k), m = a.shape[:-2], a.shape[-2:], b.shape[-1]
        a, b = cp.ascontiguousarray(a), cp.ascontiguousarray(b)
        out = cp.zeros((*batch, n, m), dtype=a.dtype)
        if out.size * k:
            grid = (-(-m // TILE), -(-n // TILE), out.size // (n * m))
            name = "matmul32" if a.dtype == np.uint32 else "matmul64"
            self._kernel[name](grid, (TILE, TILE), (a, b, out, np.int32(n), np.int32(k), np.int32(m)))
        return out

    def harmonics(self, r: Array, bits: int, count: int, frac: int) -> Array:
        c, s = self.turn(r, bits)
        out = cp.empty((2 * count, r.size), dtype=np.uint64)
        self._launch("harmonics", r.size, c, s, np.uint64(r.size), np.int32(count), np.float64(2.0**frac), out)
        return out

    def series(self, u: Array, bits: int, cos: np.ndarray, sin: np.ndarray, words: Array, frac: int) -> Array:
        c, s = self.turn(u, bits)
        functions, count = cos.shape
        out = cp.zeros((functions, u.size), dtype=np.uint64)
        factors = (cp.asarray(cos * 2.0**frac), cp.asarray(sin * 2.0**frac), cp.ascontiguousarray(words))
        self._launch("series", u.size, c, s, np.uint64(u.size), np.int32(functions), np.int32(count), *factors, out)
        return out

    def look_up(self, tables: Array, v: Array) -> tuple[Array, Array]:
        equal, less = cp.empty(v.size, dtype=np.uint8), cp.empty(v.size, dtype=np.uint8)
        tables, v = cp.ascontiguousarray(tables), cp.ascontiguousarray(v)
        self._launch("look_up", v.size, tables, v, np.uint64(v.size), np.int32(tables.shape[1]), equal, less)
        return equal, less

    def truncated(self, u: Array, shifted: Array, msb: Array, shift: int, window: int, first: bool) -> Array:
        out = cp.empty_like(u)
        facts = (np.uint64(u.size), np.int32(shift), np.int32(window), np.int32(first))
        self._launch("truncated", u.size, u, shifted, msb, *facts, out)
        return out
