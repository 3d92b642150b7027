"""Beaver products, element-wise and matrix, several in one round; and weights whose mask is opened once.

For every pair x, y with masks a, b and c = a b from the dealer (Beaver 1991):

1. open e = x - a, d = y - b                                     one round; an operand of several pairs opens once
2. z = e d [party 0 only] + e b + a d + c

A weight y is opened at load, so its d is known before any request. The product a d does not depend on the input either,
so it counts as offline. Of a cache y, the rows that came before were opened by then: step 1 opens the new ones alone.

An element-wise product also takes an operand that is right modulo 2^k only (see `ops/truncate`), and lifts it:

1. open u = (x + r + 2^(k-2)) mod 2^k, in place of e
2. x = e + a + s m 2^k with e = u - 2^(k-2) and s = 1 - msb u, which are public, and a = -(r mod 2^k), m = bit k - 1 of
   r, which the dealer knows. So x y has the terms of step 2 above, and for each of its lifted operands one more:
   z += s_x 2^k [m_x b] + s_y 2^k [a m_y] + s_x s_y 2^2k [m_x m_y]; brackets are dealt
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from secformer.mpc.caches import Cache, Entering
from secformer.mpc.dealer.correlations import Material
from secformer.mpc.dealer.kinds import WeightMask
from secformer.mpc.dealer.products import Bilinear, Hadamard, MatMul, Slots
from secformer.mpc.errors import Desync
from secformer.mpc.kernels.bundles import Item
from secformer.mpc.kernels.standing import Standing
from secformer.mpc.kernels.words import Factor
from secformer.mpc.ops.guard import plain
from secformer.mpc.party import Opens, Party
from secformer.mpc.ring import word_type
from secformer.mpc.scales import Operand, distinct
from secformer.mpc.shares import Weight

K = TypeVar("K", bound=Bilinear)
Right = Operand | Weight | Entering


@dataclass(frozen=True)
class OpenedWeight:
    """What a party keeps of a weight.

    rights  b_i + [i = 0] d, the factor of e in step 2, and the opened d = W - b
    """

    rights: Standing | tuple[Any, Any] = field(repr=False)

    @property
    def words(self) -> tuple[Any, Any]:
        return self.rights.words() if isinstance(self.rights, Standing) else self.rights

    def __getitem__(self, index: Any) -> OpenedWeight:
        factor, opened = self.words
        return OpenedWeight((factor[index], opened[index]))

    def swapaxes(self, a: int, b: int) -> OpenedWeight:
        factor, opened = self.words
        return OpenedWeight((factor.swapaxes(a, b), opened.swapaxes(a, b)))


@dataclass
class OpenedRows:
    """What a party keeps of a cache, rows (T, G, D) as an `OpenedWeight`. Slots that were not used yet have the opened
    value 0, and so the parties share of them the mask."""

    bits: int = 0
    opened: Any = field(default=None, repr=False)
    factor: Any = field(default=None, repr=False)

    def grow(self, party: Party, cache: Cache, bits: int, masks: Callable[[], Any]) -> None:
        """Brings the cache to its capacity; `masks` gives those of all slots behind the base's. Raises Desync where
        rows are needed in more or fewer bits than they were opened in."""
        if self.bits not in (0, bits):
            raise Desync(f"cache {cache.number} was opened in {self.bits} bits and is needed in {bits}; use one range "
                         f"profile for all steps")
        self.bits, have = bits, 0 if self.opened is None else len(self.opened)
        if have == cache.capacity:
            return
        with party.meter.offline():
            mask = masks().reshape(-1, *cache.row)
        if not have and cache.base is not None:
            have = cache.first
            self.factor, self.opened = (v.reshape(have, *cache.row).astype(np.uint64) for v in cache.base.data.words)
        fresh, joined = mask[have - cache.first :], party.kernels.backend.joined
        nothing = party.kernels.xp.zeros(fresh.shape, np.uint64)
        self.opened = joined([self.opened, nothing]) if have else nothing
        self.factor = joined([self.factor, fresh]) if have else fresh.copy()

    def take(self, first: int, d: Any, rank: int) -> None:
        """Rows that were opened, d = y - b, in the slots from `first` on."""
        here = slice(first, first + len(d))
        self.opened[here] = d
        if rank == 0:
            self.factor[here] += d


def bilinear(
    cls: type[K], pairs: Sequence[tuple[Operand, Right]], widths: Sequence[int]
) -> tuple[K, list[Right]]:
    """The correlation for a batch of products, and its operands, each once."""
    operands: list[Right] = distinct(pairs)
    index = {id(v): i for i, v in enumerate(operands)}
    bits = [0] * len(operands)
    triples: list[tuple[int, int, int]] = []
    for (x, y), width in zip(pairs, widths, strict=True):
        i, j = index[id(x)], index[id(y)]
        bits[i], bits[j] = max(bits[i], width), max(bits[j], width)
        triples.append((i, j, width))
    for i, v in enumerate(operands):
        if isinstance(v, Entering):  # in all that they are right in: a later product may be wider than this one
            bits[i] = v.rows.share.width
    shapes = tuple(tuple(v.shape) for v in operands)
    weights = tuple(v.index if isinstance(v, Weight) else None for v in operands)
    guards = tuple(plain(v.check) if isinstance(v, Operand) else () for v in operands)
    lifts = tuple(v.window if isinstance(v, Operand) else 0 for v in operands)
    caches = tuple(_slots(v) if isinstance(v, Entering) else () for v in operands)
    kind = cls(shapes, tuple(bits), tuple(triples), weights, guards if any(guards) else (),
               **({"lifts": lifts} if any(lifts) else {}), **({"caches": caches} if any(caches) else {}))
    return kind, operands


def _slots(v: Entering) -> tuple[int, ...]:
    cache = v.cached.cache
    base = cache.base.index + 1 if cache.base is not None and isinstance(cache.base.index, int) else 0
    return tuple(Slots(cache.number, int(v.cached.swapped), len(v.rows.share), cache.first, base))


def hadamard(party: Party, pairs: Sequence[tuple[Operand, Operand]], widths: Sequence[int],
             kept: Sequence[Operand] = ()) -> Opens:
    """Element-wise products, broadcasting, and behind them the operands in `kept` as they were opened. One round; for
    each element of each distinct operand its window where it is lifted, else the width in bits."""
    kind, operands = bilinear(Hadamard, pairs, widths)
    material, results = party.take(kind), []
    factors = yield from _opened(party, kind, material, operands)                                     # 1
    for p, (i, j, _) in enumerate(kind.pairs):                                                        # 2
        terms = {name: material.draw(f"{name}{p}") for name, _ in kind.terms(p)}
        results.append(party.kernels.multiplied(factors[i], factors[j], terms, party.rank == 0))
    own = {id(v): factor for v, factor in zip(operands, factors, strict=True)}
    return [*results, *(party.kernels.share(own[id(v)], party.rank == 0) for v in kept)]


def _opened(party: Party, kind: Hadamard, material: Material,
            operands: Sequence[Any]) -> Generator[tuple[str, Sequence[Item]], list[Any], list[Factor]]:
    """Opens the operands of element-wise products."""
    first, masked = party.rank == 0, []
    for i, v in enumerate(operands):
        if window := kind.window(i):
            masked.append(material.masked(f"mask{i}", v.data, 1 << (window - 2) if first else 0, keeps=True))
        else:
            masked.append(material.subtracted(f"mask{i}", v.data))
    opened = yield "product", [(m, kind.window(i) or kind.bits[i]) for i, m in enumerate(masked)]
    _see(party, kind, material, operands, opened)
    factors = []
    for i, (v, m, u) in enumerate(zip(operands, masked, opened, strict=True)):
        wraps = material.draw(f"wraps{i}") if kind.wrap_bits(i) else None
        factors.append(party.kernels.factor(u, m, wraps, kind.window(i), first, v.shape))
    return factors


def _see(party: Party, kind: Bilinear, material: Material, operands: Sequence[Right],
         opened: Sequence[Any]) -> None:
    """Shows the openings of operands that have guards to whoever watches."""
    live = ((i, v) for i, v in enumerate(operands) if isinstance(v, Operand))
    for (i, v), u in zip(live, opened, strict=True):
        party.see(material, u, kind.guards_of(i), v.shape, f"guard{i}.")


def matmul(party: Party, pairs: Sequence[tuple[Operand, Right]], widths: Sequence[int]) -> Opens:
    """Matrix products. One round; width bits for each element of each distinct operand that is not a weight. Of a cache
    only new rows are opened, in all the bits that they are right in."""
    kind, operands = bilinear(MatMul, pairs, widths)
    material, multiply = party.take(kind), party.kernels.matmul
    live = [(i, v) for i, v in enumerate(operands) if isinstance(v, Operand)]
    grown = [(i, v) for i, v in enumerate(operands) if isinstance(v, Entering)]
    masked = {i: material.subtracted(f"mask{i}", v.data) for i, v in live}
    rows = {i: _entering(party, kind, i, material, v) for i, v in grown}
    opened = yield "product", [(m, kind.bits[i]) for i, m in (masked | rows).items()]                 # 1
    masks = {i: masked[i].rest.reshape(v.shape) for i, v in live}
    _see(party, kind, material, operands, opened[: len(live)])
    for (_, v), d in zip(grown, opened[len(live) :], strict=True):
        v.cached.cache.data.take(v.cached.first, d.reshape(v.rows.shape), party.rank)
    e = {i: u.reshape(v.shape) for (i, v), u in zip(live, opened, strict=False)}
    results = []
    for p, (i, j, width) in enumerate(kind.pairs):                                                    # 2
        right = operands[j]
        c = material.draw(f"product{p}")
        if isinstance(right, Operand):
            rights = masks[j] + e[j] if party.rank == 0 else masks[j], e[j]
            results.append(party.kernels.joint((e[i], masks[i]), rights, c, width))
        elif party.kernels.fuses:
            results.append(party.kernels.joint((e[i], masks[i]), _rights(right), c, width))
        else:
            standing = _rights(right)
            factor, d = standing.words() if isinstance(standing, Standing) else standing
            left, left_mask, d, factor = (v.astype(word_type(width), copy=False) for v in (e[i], masks[i], d, factor))
            with party.meter.offline():
                fixed_part = multiply(left_mask, d, width)
            z = multiply(left, factor, width) + fixed_part
            results.append(z.astype(np.uint64, copy=False) + c.reshape(z.shape))
    return results


def _rights(right: Weight | Entering) -> Standing | tuple[Any, Any]:
    """The factor of e in step 2, and what was opened, of an operand that stands."""
    if isinstance(right, Weight):
        rights: Standing | tuple[Any, Any] = right.data.rights
        return rights
    rows: OpenedRows = right.cached.cache.data
    return right.cached.placed(rows.factor), right.cached.placed(rows.opened)


def _entering(party: Party, kind: MatMul, i: int, material: Material, v: Entering) -> Any:
    """The new rows of a cache, minus their slots' masks."""
    cache = v.cached.cache
    cache.data.grow(party, cache, kind.bits[i], lambda: material.draw(f"mask{i}"))
    mask = cache.data.factor[v.cached.first : v.cached.first + len(v.rows.share)]
    return party.kernels.plain(v.rows.data) - mask.reshape(-1)


def open_weight(party: Party, words: Any, index: int, width: int) -> OpenedWeight:
    """Opens a weight under its standing mask. One round at load, width bits per element; all of it offline."""
    kind = WeightMask(index, tuple(words.shape), width)
    dtype = word_type(width)
    with party.meter.offline():
        mask = party.take(kind).draw("mask").reshape(words.shape)
        (d,) = party.open("weight", [(words.astype(np.uint64, copy=False) - mask, width)])
        d, mask = d.reshape(words.shape).astype(dtype, copy=False), mask.astype(dtype, copy=False)
        return OpenedWeight(Standing(party.kernels.backend, (mask + d if party.rank == 0 else mask, d)))
