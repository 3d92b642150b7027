"""Exact matrix products on a GPU, three ways: bytes on the tensor cores (`digits.cu`), balanced limbs through float64
BLAS (`limbs.cu`), words on the integer units (`integer.cu`). Same words, whichever is taken.

Letters: z batch, n rows, k inner, m columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from secformer.mpc.kernels.cuda.ways import BYTES, FLOAT64, INTEGER, Choice, Product, digits
from secformer.mpc.kernels.reference import EXACT_K, EXACT_K_NARROW

Array = Any
Launched = Mapping[str, Any]  # kernels by name
THREADS = 256  # threads of a block
SIDE, STEP, STAGES = 64, 32, 3  # rows and columns of a block, inner steps of a stage, stages in flight: as in digits.cu
TILE = 64                       # rows and columns of a block's part of the result, as in integer.cu
FULL = 132                      # blocks that a large device runs at once, one on each multiprocessor
LEAST_STEPS, FILLING = 6, 3     # inner steps that are worth a block of their own; what starting one costs, in steps
MOST_BLOCKS = 65535             # most blocks along a grid's second and third dimension: CUDA's limit


class Split(NamedTuple):
    """One side of a byte product: its planes, and z batches of so many rows or columns, inner steps and bytes."""

    planes: Array
    batch: int
    outer: int
    steps: int
    digits: int

    def __repr__(self) -> str:
        return f"Split{self[1:]}"  # the planes may be secret


class Products:
    """Multiplies by the way that `choice` names, or by one that the caller names."""

    def __init__(self, xp: Any, kernels: Launched, choice: Choice):
        self.xp, self._kernel, self.choice = xp, kernels, choice
        self._ways: dict[str, Callable[[Array, Array, Array, Product], None]] = {
            BYTES: self._bytes, FLOAT64: self._float64, INTEGER: self._integer,
        }
        if choice.possible(BYTES):  # older devices would refuse so much shared memory
            for d in range(4, 9):
                kernels[f"digits{d}"].max_dynamic_shared_size_bytes = _stages(d)

    def __call__(self, a: Array, b: Array, shape: Product, way: str | None = None) -> Array:
        """a (..., n, k) @ b (..., k, m), contiguous result of a's type, right mod 2^bits."""
        xp, (z, n, k, m) = self.xp, (shape.batch, shape.n, shape.k, shape.m)
        out = xp.empty((*a.shape[:-1], m), dtype=a.dtype)
        if not out.size:
            return out
        if not k:
            out[...] = 0
            return out
        multiply = self._ways[way or self.choice(shape)]
        left, right = xp.ascontiguousarray(a).reshape(z, n, k), xp.ascontiguousarray(b).reshape(z, k, m)
        result = out.reshape(z, n, m)
        for start in range(0, z, MOST_BLOCKS):
            part = slice(start, start + MOST_BLOCKS)
            multiply(left[part], right[part], result[part], shape)
        return out

    def _integer(self, a: Array, b: Array, out: Array, shape: Product) -> None:
        grid = (-(-shape.m // TILE), -(-shape.n // TILE), out.shape[0])
        sizes = np.int32(shape.n), np.int32(shape.k), np.int32(shape.m)
        self._kernel[f"integer{_width(a)}"](grid, (THREADS,), (a, b, out, *sizes))

    def _bytes(self, a: Array, b: Array, out: Array, shape: Product) -> None:
        d = 4 if _width(a) == 32 else max(5, digits(shape.bits))
        self._multiplied(self.split("rows", [a], d), self.split("columns", [b], d), out, onto=False)

    def split(self, side: str, words: Sequence[Array], d: int) -> Split:
        """The `d` lowest bytes of words (z, n, k), or (z, k, m) for columns, as the byte product reads them. Two arrays
        are operands of two products that are added up."""
        z, rows, columns = words[0].shape
        outer, inner = (rows, columns) if side == "rows" else (columns, rows)
        each, sides = -(-inner // STEP), -(-outer // SIDE)
        planes = self.xp.empty(z * sides * len(words) * each * d * SIDE * STEP, dtype=np.uint8)
        sizes = np.int32(each), np.int32(rows), np.int32(columns), np.int32(d)
        self._kernel[f"split_{side}{_width(words[0])}"]((len(words) * each, 2 * sides, z), (THREADS,),
                                                        (words[0], words[-1], *sizes, planes))
        return Split(planes, z, outer, len(words) * each, d)

    def _multiplied(self, a: Split, b: Split, out: Array, onto: bool) -> None:
        """out (z, n, m) = the product of split operands, or that and what `out` holds."""
        rows, columns, d = -(-a.outer // SIDE), -(-b.outer // SIDE), a.digits
        most = longest(d) // STEP
        parts = parted(columns * rows * a.batch, min(most, a.steps))
        if parts > 1 and not onto:
            out.fill(0)  # the parts add to it
        for start in range(0, a.steps, most):
            part = start, min(most, a.steps - start), a.steps, onto or start > 0, parts
            self._kernel[f"digits{d}"]((columns, rows, a.batch * parts), (THREADS,),
                                       (a.planes, b.planes, out, np.int32(a.outer), np.int32(b.outer),
                                        *map(np.int32, part)), shared_mem=_stages(d))

    def joint(self, lefts: Sequence[Array], rights: Sequence[Array] | Split, onto: Array, shape: Product) -> Array:
        """onto (z, n, m) + the sum of a (z, n, k) @ b (z, k, m), right mod 2^bits, in `onto` where that has the type of
        the result. Bytes are the way."""
        d = digits(shape.bits)
        b = rights if isinstance(rights, Split) else self.split("columns", rights, d)
        if d > 4:
            self._multiplied(self.split("rows", lefts, d), b, onto, onto=True)
            return onto
        narrow = onto.astype(np.uint32)
        self._multiplied(self.split("rows", lefts, d), b, narrow, onto=True)
        return narrow.astype(np.uint64)

    def _float64(self, a: Array, b: Array, out: Array, shape: Product) -> None:
        narrow = _width(a) == 32
        pairs = ((0, 0), (0, 1), (1, 0)) if narrow else ((0, 0), (0, 1), (1, 0), (0, 2), (2, 0), (1, 1))
        products = self.xp.empty((len(pairs), *out.shape))
        most = EXACT_K_NARROW if narrow else EXACT_K
        for start in range(0, shape.k, most):
            x, y = self._limbs(a[..., start : start + most]), self._limbs(b[:, start : start + most])
            for p, (i, j) in enumerate(pairs):
                products[p] = self.xp.matmul(x[i], y[j])
            self._each(f"joined{_width(a)}", out.size, products, np.uint64(out.size), np.int32(start > 0), out)

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


@lru_cache(maxsize=1 << 10)
def parted(blocks: int, steps: int) -> int:
    """Parts that the inner side of a product of so many blocks and steps is cut into: those that take the fewest steps
    one after the other, where a device runs FULL blocks at once and a block starts with FILLING steps of waiting."""
    most = max(1, min(steps // LEAST_STEPS, MOST_BLOCKS // blocks))
    return min(range(1, most + 1), key=lambda parts: -(-blocks * parts // FULL) * (-(-steps // parts) + FILLING))


def _stages(d: int) -> int:
    """Bytes of shared memory of a byte product: `STAGES` stages of both operands."""
    return STAGES * 2 * d * SIDE * STEP


def _width(words: Array) -> int:
    return 32 if words.dtype == np.uint32 else 64
