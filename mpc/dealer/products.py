"""Kinds of products: element-wise, also of operands that are lifted on the way, and of matrices (see `mpc/ops/linear`).

What a kind is, and the other kinds of arithmetic, are in `kinds`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from secformer.mpc.dealer.kinds import Array, Field, Guards, Kind, Shape, Standing, Values
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.words import whole_bytes
from secformer.mpc.ring import word_type


@dataclass(frozen=True)
class Bilinear(Kind):
    """Masks a_i of several operands, and for each pair (i, j) the product of a_i and a_j: operands that occur in
    several pairs are opened once, and a square is the pair (i, i).

    shapes     of the operands
    bits       in which each operand is needed, and opened unless it is lifted
    pairs      (i, j, width): the product is right mod 2^width
    weights    for each operand the index of a weight's standing mask, with the range [start, stop) of its columns
               where not all take part, or None for a fresh one
    guards     of each operand's opening
    """

    shapes: tuple[Shape, ...]
    bits: tuple[int, ...]
    pairs: tuple[tuple[int, int, int], ...]
    weights: tuple[int | tuple[int, int, int] | None, ...]
    guards: tuple[Guards, ...] = ()

    @abstractmethod
    def product_shape(self, i: int, j: int) -> Shape: ...

    @abstractmethod
    def product(self, a: Array, b: Array, width: int, kernels: Kernels) -> Array:
        """The product of two arrays of words, right mod 2^width."""

    def window(self, i: int) -> int:
        """Bits in which operand i is opened and lifted; 0 where it is opened as it is."""
        return 0

    def guards_of(self, i: int) -> Guards:
        return self.guards[i] if self.guards else ()

    def size(self, i: int) -> int:
        return math.prod(self.shapes[i])

    def fields(self) -> Iterator[Field]:
        fresh = [i for i, weight in enumerate(self.weights) if weight is None]
        for i in fresh:
            yield Field(f"mask{i}", self.size(i), self.window(i) or self.bits[i], carries=bool(self.window(i)))
        for i in fresh:
            yield from self.guard_fields(self.size(i), self.guards_of(i), f"guard{i}.")
        for i in fresh:
            if self.wrap_bits(i):
                yield Field(f"wraps{i}", 2 * self.size(i), self.wrap_bits(i), derived=True)
        for p, (i, j, _) in enumerate(self.pairs):
            count = math.prod(self.product_shape(i, j))
            for name, bits in self.terms(p):
                yield Field(f"{name}{p}", count, bits, derived=True)

    def wrap_bits(self, i: int) -> int:
        """Bits of a lifted operand's wraps (see `Lift`)."""
        return max(0, self.bits[i] - self.window(i)) if self.window(i) else 0

    def terms(self, p: int) -> Iterator[tuple[str, int]]:
        """The derived fields of pair p: name, and bits."""
        yield "product", self.pairs[p][2]

    def correlate(self, masks: Values, kernels: Kernels, standing: Standing) -> Iterator[Array]:
        fresh = [i for i, weight in enumerate(self.weights) if weight is None]
        for i in fresh:
            r = masks[f"mask{i}"]
            # u = x + r where an operand is lifted, and x - a where it is not
            yield from self.guard_tables(r.reshape(-1), self.guards_of(i), kernels, negated=not self.window(i))
        for i in fresh:
            if self.wrap_bits(i):
                yield kernels.wraps(masks[f"mask{i}"], self.window(i))
        yield from self.products(masks, kernels, standing)

    def products(self, masks: Values, kernels: Kernels, standing: Standing) -> Iterator[Array]:
        """The values of all pairs' terms."""
        operands = [masks[f"mask{i}"].reshape(shape) if (w := self.weights[i]) is None else _columns(standing, w)
                    for i, shape in enumerate(self.shapes)]
        for i, j, width in self.pairs:
            yield self.product(operands[i], operands[j], width, kernels).reshape(-1).astype(np.uint64, copy=False)

    @property
    def opened(self) -> int:
        return sum(self.size(i) * whole_bytes(self.window(i) or self.bits[i])
                   for i, weight in enumerate(self.weights) if weight is None)


@dataclass(frozen=True)
class Hadamard(Bilinear):
    """Element-wise products, broadcasting, mod 2^width. `lifts` has for each operand the window, in bits, in which it
    is opened and lifted at once, or 0.

    Law: an operand that is not lifted has the mask a. A lifted one, of window k and mask sum r, has a = -(r mod 2^k),
    m = bit k - 1 of r, and wraps as in `Lift`. Of a pair x, y: product = a_x a_y; left = m_x a_y, right = a_x m_y,
    both = m_x m_y, modulo what is left of the width above k_x, k_y, k_x + k_y. Of a square: product = a a,
    left = m (2 a + 2^k).
    """

    lifts: tuple[int, ...] = ()

    def product_shape(self, i: int, j: int) -> Shape:
        return np.broadcast_shapes(self.shapes[i], self.shapes[j])

    def product(self, a: Array, b: Array, width: int, kernels: Kernels) -> Array:
        return a * b

    def window(self, i: int) -> int:
        return self.lifts[i] if self.lifts else 0

    def terms(self, p: int) -> Iterator[tuple[str, int]]:
        i, j, width = self.pairs[p]
        yield "product", width
        above = [("left", self.window(i)), ("right", 0 if i == j else self.window(j)),
                 ("both", self.window(i) + self.window(j) if i != j and self.window(i) and self.window(j) else 0)]
        yield from ((name, width - k) for name, k in above if k and width > k)

    def products(self, masks: Values, kernels: Kernels, standing: Standing) -> Iterator[Array]:
        for p, (i, j, _) in enumerate(self.pairs):
            each = (i,) if i == j else (i, j)
            yield from kernels.product_terms([masks[f"mask{v}"].reshape(self.shapes[v]) for v in each],
                                             [self.window(v) for v in each], [name for name, _ in self.terms(p)])


@dataclass(frozen=True)
class MatMul(Bilinear):
    """Law: product_p = mask_i @ mask_j mod 2^width; either mask may be a weight's standing one."""

    def product_shape(self, i: int, j: int) -> Shape:
        return (*self.shapes[i][:-1], self.shapes[j][-1])

    def product(self, a: Array, b: Array, width: int, kernels: Kernels) -> Array:
        dtype = word_type(width)
        return kernels.matmul(a.astype(dtype, copy=False), b.astype(dtype, copy=False), width)


def _columns(standing: Standing, weight: int | tuple[int, int, int]) -> Array:
    """A weight's standing mask, or some columns of it."""
    if isinstance(weight, int):
        return standing(weight)
    index, start, stop = weight
    return standing(index)[..., start:stop]
