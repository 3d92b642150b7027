"""Kinds of products: element-wise, also of operands that are lifted on the way, and of matrices (see `mpc/ops/linear`).

What a kind is, and the other kinds of arithmetic, are in `kinds`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from secformer.mpc.caches import as_operand
from secformer.mpc.dealer.kinds import Array, Field, Guards, Kind, Shape, Standing, Values
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.words import broadcast, whole_bytes
from secformer.mpc.ring import WORD_BITS, word_type


class Slots(NamedTuple):
    """A cache as an operand (1, G, T, D) of matrix products; see `mpc/caches`.

    number   of the cache
    swapped  1 where the operand's last two axes are swapped
    opened   rows that the product opens, each (G, D)
    first    slots that begin with the rows of a weight, under that weight's mask
    base     one more than that weight's number; 0 for none
    """

    number: int
    swapped: int
    opened: int
    first: int
    base: int

    def stored(self, shape: Shape) -> tuple[int, int, int]:
        """G, T and D of an operand of that shape."""
        _, g, t, d = shape
        return (g, d, t) if self.swapped else (g, t, d)

    def row(self, shape: Shape) -> int:
        """G D, the elements of a row."""
        g, _, d = self.stored(shape)
        return g * d

    def placed(self, rows: Array) -> Array:
        """Rows (T, G, D) as the operand."""
        return as_operand(rows, bool(self.swapped))


@dataclass(frozen=True)
class Bilinear(Kind):
    """Masks a_i of several operands, and for each pair (i, j) the product of a_i and a_j: operands that occur in
    several pairs are opened once, and a square is the pair (i, i).

    shapes     of the operands
    bits       in which each operand is needed, and opened unless it is lifted
    pairs      (i, j, width): the product is right mod 2^width
    weights    for each operand the index of a weight's standing mask, with the range [start, stop) of its columns
               where not all take part, and 1 where these are transposed; or None for a fresh one
    guards     of each operand's opening
    """

    shapes: tuple[Shape, ...]
    bits: tuple[int, ...]
    pairs: tuple[tuple[int, int, int], ...]
    weights: tuple[int | tuple[int, ...] | None, ...]
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

    @property
    def fresh(self) -> list[int]:
        """The operands under masks that serve once."""
        return [i for i, weight in enumerate(self.weights) if weight is None]

    def size(self, i: int) -> int:
        return math.prod(self.shapes[i])

    def fields(self) -> Iterator[Field]:
        fresh = self.fresh
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
        fresh = self.fresh
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
        operands = [self.mask(i, masks, kernels, standing) for i in range(len(self.shapes))]
        for i, j, width in self.pairs:
            yield self.product(operands[i], operands[j], width, kernels).reshape(-1).astype(np.uint64, copy=False)

    def mask(self, i: int, masks: Values, kernels: Kernels, standing: Standing) -> Array:
        """The mask of operand i, in its shape."""
        weight = self.weights[i]
        return masks[f"mask{i}"].reshape(self.shapes[i]) if weight is None else _columns(standing, weight)

    @property
    def opened(self) -> int:
        return sum(self.size(i) * whole_bytes(self.window(i) or self.bits[i]) for i in self.fresh)


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
        return broadcast(self.shapes[i], self.shapes[j])

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
    """Law: product_p = mask_i @ mask_j mod 2^width; either mask may be a weight's or a cache's standing one.

    caches  for each operand (), or what `Slots` has of a cache. None stands among the weights
    """

    caches: tuple[tuple[int, ...], ...] = ()

    def slots(self, i: int) -> Slots | None:
        """What operand i is of a cache, if it is one."""
        return Slots(*self.caches[i]) if self.caches and self.caches[i] else None

    @property
    def fresh(self) -> list[int]:
        return [i for i in super().fresh if not self.slots(i)]

    def fields(self) -> Iterator[Field]:
        for i in range(len(self.shapes)):
            if slots := self.slots(i):
                g, t, d = slots.stored(self.shapes[i])
                # of whole words a longer stream begins with a shorter one; they are opened in self.bits[i]
                yield Field(f"mask{i}", g * (t - slots.first) * d, WORD_BITS, cache=slots.number)
        yield from super().fields()

    def mask(self, i: int, masks: Values, kernels: Kernels, standing: Standing) -> Array:
        slots = self.slots(i)
        if slots is None:
            return super().mask(i, masks, kernels, standing)
        g, t, d = slots.stored(self.shapes[i])
        mask = masks[f"mask{i}"].reshape(t - slots.first, g, d)
        if slots.base:
            base = standing(slots.base - 1).reshape(slots.first, g, d).astype(np.uint64, copy=False)
            mask = kernels.backend.joined([base, mask])
        return slots.placed(mask)

    @property
    def opened(self) -> int:
        rows = [(i, slots) for i in range(len(self.shapes)) if (slots := self.slots(i))]
        return super().opened + sum(slots.opened * slots.row(self.shapes[i]) * whole_bytes(self.bits[i])
                                    for i, slots in rows)

    def product_shape(self, i: int, j: int) -> Shape:
        return (*self.shapes[i][:-1], self.shapes[j][-1])

    def product(self, a: Array, b: Array, width: int, kernels: Kernels) -> Array:
        dtype = word_type(width)
        return kernels.matmul(a.astype(dtype, copy=False), b.astype(dtype, copy=False), width)


@dataclass(frozen=True)
class UnknownFactor(Kind):
    """A matrix (rows, columns) that nobody knows, and a mask of a row of words that is multiplied by it. Only that row
    is opened, so the matrix serves like a product's mask.

    Law: product = mask @ factor mod 2^64.
    """

    rows: int
    columns: int

    def fields(self) -> Iterator[Field]:
        yield Field("mask", self.rows, WORD_BITS)
        yield Field("factor", self.rows * self.columns, WORD_BITS)
        yield Field("product", self.columns, WORD_BITS, derived=True)

    def correlate(self, masks: Values, kernels: Kernels, standing: Standing) -> Iterator[Array]:
        factor = masks["factor"].reshape(self.rows, self.columns)
        yield kernels.matmul(masks["mask"].reshape(1, -1), factor).reshape(-1)

    @property
    def opened(self) -> int:
        return 8 * self.rows


def _columns(standing: Standing, weight: int | tuple[int, ...]) -> Array:
    """A weight's standing mask, or some columns of it, or these transposed."""
    if isinstance(weight, int):
        return standing(weight)
    index, start, stop, *swapped = weight
    columns = standing(index)[..., start:stop]
    return columns.swapaxes(-1, -2) if swapped else columns
