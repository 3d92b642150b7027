"""Beaver products, element-wise and matrix, several in one round; and weights whose mask is opened once.

For every pair x, y with masks a, b and c = a b from the dealer (Beaver 1991):

1. open e = x - a, d = y - b                                     one round; an operand of several pairs opens once
2. z = e d [party 0 only] + e b + a d + c

A weight y is opened at load, so its d is known before any request. The product a d does not depend on the input either,
so it counts as offline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from secformer.mpc.dealer.kinds import Bilinear, Hadamard, MatMul, WeightMask
from secformer.mpc.party import Party
from secformer.mpc.ring import word_type
from secformer.mpc.shares import Share, Weight

Operand = Share | Weight


@dataclass(frozen=True)
class OpenedWeight:
    """What a party keeps of a weight: the opened d = W - b, and b_i + [i = 0] d, the factor of e in step 2."""

    opened: Any = field(repr=False)
    factor: Any = field(repr=False)

    def __getitem__(self, index: Any) -> OpenedWeight:
        return OpenedWeight(self.opened[index], self.factor[index])


def bilinear(
    cls: type[Bilinear], pairs: Sequence[tuple[Operand, Operand]], widths: Sequence[int]
) -> tuple[Bilinear, list[Operand]]:
    """The correlation for a batch of products, and its operands, each once."""
    operands: list[Operand] = []
    index: dict[int, int] = {}
    for pair in pairs:
        for v in pair:
            if id(v) not in index:
                index[id(v)] = len(operands)
                operands.append(v)
    bits = [0] * len(operands)
    triples = []
    for (x, y), width in zip(pairs, widths, strict=True):
        i, j = index[id(x)], index[id(y)]
        bits[i], bits[j] = max(bits[i], width), max(bits[j], width)
        triples.append((i, j, width))
    weights = tuple(v.index if isinstance(v, Weight) else None for v in operands)
    return cls(tuple(tuple(v.shape) for v in operands), tuple(bits), tuple(triples), weights), operands


def hadamard(party: Party, pairs: Sequence[tuple[Share, Share]], widths: Sequence[int]) -> list[Any]:
    """Element-wise products, broadcasting. One round; width bits for each element of each distinct operand."""
    return _products(party, *bilinear(Hadamard, pairs, widths), lambda a, b, width: a * b)


def matmul(party: Party, pairs: Sequence[tuple[Share, Operand]], widths: Sequence[int]) -> list[Any]:
    """Matrix products. One round; width bits for each element of each distinct operand that is not a weight."""
    return _products(party, *bilinear(MatMul, pairs, widths), party.kernels.matmul)


def _products(
    party: Party, kind: Bilinear, operands: list[Operand], multiply: Callable[[Any, Any, int], Any]
) -> list[Any]:
    material = party.take(kind)
    masks = {i: material.draw(f"mask{i}").reshape(shape)
             for i, (shape, w) in enumerate(zip(kind.shapes, kind.weights, strict=True)) if w is None}
    live = [(i, v) for i, v in enumerate(operands) if isinstance(v, Share)]
    opened = party.open("product", [(v.data - masks[i], kind.bits[i]) for i, v in live])              # 1
    e = {i: u.reshape(v.shape) for (i, v), u in zip(live, opened, strict=True)}
    results = []
    for p, (i, j, width) in enumerate(kind.pairs):                                                    # 2
        dtype = word_type(width) if isinstance(kind, MatMul) else np.uint64
        left, left_mask = e[i].astype(dtype, copy=False), masks[i].astype(dtype, copy=False)
        right = operands[j]
        if isinstance(right, Weight):
            with party.meter.offline():
                fixed_part = multiply(left_mask, right.data.opened.astype(dtype, copy=False), width)
            factor = right.data.factor.astype(dtype, copy=False)
        elif i == j and isinstance(kind, Hadamard):
            # e e + 2 e a: one multiplication by e + 2 a
            fixed_part, factor = dtype(0), left_mask + left_mask + (left if party.rank == 0 else dtype(0))
        else:
            d, b = e[j].astype(dtype, copy=False), masks[j].astype(dtype, copy=False)
            fixed_part, factor = multiply(left_mask, d, width), b + d if party.rank == 0 else b
        z = multiply(left, factor, width) + fixed_part
        results.append(z.astype(np.uint64, copy=False) + material.draw(f"product{p}").reshape(z.shape))
    return results


def open_weight(party: Party, words: Any, index: int, width: int) -> OpenedWeight:
    """Opens a weight under its standing mask. One round at load, width bits per element; all of it offline."""
    kind = WeightMask(index, tuple(words.shape), width)
    dtype = word_type(width)
    with party.meter.offline():
        mask = party.take(kind).draw("mask").reshape(words.shape)
        (d,) = party.open("weight", [(words.astype(np.uint64, copy=False) - mask, width)])
        d, mask = d.reshape(words.shape).astype(dtype, copy=False), mask.astype(dtype, copy=False)
        return OpenedWeight(d, mask + d if party.rank == 0 else mask)
