"""Exact matrix products on a GPU, three ways: bytes on the tensor cores (`digits.cu`), balanced limbs through float64
BLAS (`limbs.cu`), words on the integer units (`integer.cu`). Same words, whichever is taken.

Letters: z batch, n rows, k inner, m columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from secformer.mpc.kernels.cuda.ways import BYTES, FLOAT64, INTEGER, Choice, Product, digits
from secformer.mpc.kernels.reference import EXACT_K, EXACT_K_NARROW

Array = Any
Launched = Mapping[str, Any]  # kernels by name
THREADS = 256  # threads of a block
SIDE, STEP, STAGES = 64, 32, 3  # rows and columns of a block, inner steps of a stage, stages in flight: as in digits.cu
TILE = 64                       # rows and columns of a block's part of the result, as in integer.cu
MOST_BLOCKS = 65535             # most blocks along a grid's second and third dimension: CUDA's limit


class Products:
    """Multiplies by the way that `choice` names, or by one that the caller names."""

    def __init__(self, xp: Any, kernels: Launched, choice: Choice):
        self.xp, self._kernel, self.choice = xp, kernels, choice
        self._ways: dict[str, Callable[[Array, Array, Array, Product, bool], None]] = {
            BYTES: self._bytes, FLOAT64: self._float64, INTEGER: self._integer,
        }
        if choice.possible(BYTES):  # older devices would refuse so much shared memory
            for d, name in [(4, "digits4_wide"), *((d, f"digits{d}") for d in range(4, 9))]:
                kernels[name].max_dynamic_shared_size_bytes = _stages(d)

    def __call__(self, a: Array, b: Array, shape: Product, way: str | None = None, onto: Array | None = None) -> Array:
        """a (..., n, k) @ b (..., k, m), contiguous result of a's type, right mod 2^bits. With `onto`, whole words,
        contiguous: the product is added to these, in place."""
        xp, (z, n, k, m) = self.xp, (shape.batch, shape.n, shape.k, shape.m)
        out = xp.empty((*a.shape[:-1], m), dtype=a.dtype) if onto is None else onto.reshape(*a.shape[:-1], m)
        if not out.size or (not k and onto is not None):
            return out
        if not k:
            out[...] = 0
            return out
        multiply = self._ways[way or self.choice(shape)]
        left, right = xp.ascontiguousarray(a).reshape(z, n, k), xp.ascontiguousarray(b).reshape(z, k, m)
        result = out.reshape(z, n, m)
        for start in range(0, z, MOST_BLOCKS):
            part = slice(start, start + MOST_BLOCKS)
            multiply(left[part], right[part], result[part], shape, onto is not None)
        return out

    def _integer(self, a: Array, b: Array, out: Array, shape: Product, more: bool) -> None:
        grid = (-(-shape.m // TILE), -(-shape.n // TILE), out.shape[0])
        sizes = np.int32(shape.n), np.int32(shape.k), np.int32(shape.m)
        self._kernel[f"integer{_width(a)}{_wider(a, out)}"](grid, (THREADS,), (a, b, out, *sizes, np.int32(more)))

    def _bytes(self, a: Array, b: Array, out: Array, shape: Product, more: bool) -> None:
        d = 4 if _width(a) == 32 else max(5, digits(shape.bits))
        z, n, k, m = out.shape[0], np.int32(shape.n), np.int32(shape.k), np.int32(shape.m)
        steps, rows, columns = -(-shape.k // STEP), -(-shape.n // SIDE), -(-shape.m // SIDE)
        planes = [self.xp.empty(z * sides * steps * d * SIDE * STEP, dtype=np.uint8) for sides in (rows, columns)]
        self._kernel[f"split{_width(a)}"]((steps, 2 * (rows + columns), z), (THREADS,),
                                          (a, b, n, k, m, np.int32(d), np.uint32(2 * rows), *planes))
        most = longest(d) // STEP
        for start in range(0, steps, most):
            part = np.int32(start), np.int32(min(most, steps - start)), np.int32(steps), np.int32(more or start > 0)
            self._kernel[f"digits{d}{_wider(a, out)}"]((columns, rows, z), (THREADS,), (*planes, out, n, m, *part),
                                       shared_mem=_stages(d))

    def _float64(self, a: Array, b: Array, out: Array, shape: Product, more: bool) -> None:
        narrow = _width(a) == 32
        pairs = ((0, 0), (0, 1), (1, 0)) if narrow else ((0, 0), (0, 1), (1, 0), (0, 2), (2, 0), (1, 1))
        products = self.xp.empty((len(pairs), *out.shape))
        most = EXACT_K_NARROW if narrow else EXACT_K
        for start in range(0, shape.k, most):
            x, y = self._limbs(a[..., start : start + most]), self._limbs(b[:, start : start + most])
            for p, (i, j) in enumerate(pairs):
                products[p] = self.xp.matmul(x[i], y[j])
            self._each(f"joined{_width(a)}{_wider(a, out)}", out.size, products, np.uint64(out.size),
                       np.int32(more or start > 0), out)

    def _limbs(self, words: Array) -> Array:
        words = self.xp.ascontiguousarray(words)
        out = self.xp.empty((2 if _width(words) == 32 else 3, *words.shape))
        self._each(f"limbs{_width(words)}", words.size, words, np.uint64(words.size), out)
        return out

    def _each(self, name: str, n: int, *args: Any) -> None:
        self._kernel[name]((-(-n // THREADS),), (THREADS,), args)


def longest(d: int) -> int:
    """Inner steps whose sums of byte products are exact where it counts, for results of d bytes, in whole stages.

    Products of shift s <= d - 5 are needed beyond 32 bits, and (s + 1) k 255^2 must stay below 2^32 for them. For
    d = 4 nothing is: any length will do.
    """
    if d <= 4:
        return 1 << 30
    return ((1 << 32) - 1) // ((d - 4) * 255**2) // STEP * STEP


def _stages(d: int) -> int:
    """Bytes of shared memory of a byte product: `STAGES` stages of both operands."""
    return STAGES * 2 * d * SIDE * STEP


def _wider(words: Array, out: Array) -> str:
    """What a kernel's name ends in that adds products of narrow words to whole ones."""
    return "" if words.dtype == out.dtype else "_wide"


def _width(words: Array) -> int:
    return 32 if words.dtype == np.uint32 else 64
