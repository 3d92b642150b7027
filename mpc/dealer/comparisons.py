"""Kinds of table look-ups: comparison with thresholds, and relu.

Each cuts a value into blocks, with one small table per block (see `mpc/ops/compare`). What a kind is, and the kinds of
arithmetic, are in `kinds`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from secformer.mpc.dealer.kinds import CHUNK, Array, Field, Guards, Kind, Standing, Values, chunks, last_chunk
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.words import whole_bytes
from secformer.mpc.ring import mask

MAX_BLOCK_BITS = 8  # bits that one comparison table resolves


@dataclass(frozen=True)
class Comparison(Kind):
    """What less and relu share: tables that compare the opened u = x + r with r, block by block.

    The low window - 1 bits are cut into blocks, most significant first. Law: equal_b has exactly the bit r_b set (r_b
    the block's value). Outcome bits are read as lt_0, eq_0, lt_1, eq_1, ..., lt_last and say
    L = lt_0 | eq_0 lt_1 | eq_0 eq_1 lt_2 ...; they are opened under alpha, one for each threshold. Guards have tables.
    """

    count: int
    window: int
    width: int
    thresholds: int = 1
    chunk: int = CHUNK
    guards: Guards = ()

    @cached_property
    def blocks(self) -> tuple[int, ...]:
        """Bits of each block, most significant first."""
        low = self.window - 1
        n = max(1, -(-low // MAX_BLOCK_BITS))
        return tuple(low // n + (i < low % n) for i in range(n))

    @property
    def outcome_bits(self) -> int:
        return 2 * len(self.blocks) - 1

    @property
    def alpha_bits(self) -> int:
        return self.outcome_bits

    def shifts(self) -> list[int]:
        """How far each block lies from bit 0."""
        return [sum(self.blocks[i + 1 :]) for i in range(len(self.blocks))]

    def block_of(self, v: Array, b: int) -> Array:
        return (v >> np.uint64(self.shifts()[b])) & mask(self.blocks[b])

    def row_bytes(self, b: int) -> int:
        return max(1, (1 << self.blocks[b]) // 8)

    def parts(self) -> Iterator[tuple[int, int, int]]:
        """Chunks: number, start, stop."""
        return ((j, start, stop) for j, (start, stop) in enumerate(chunks(self.count, self.chunk)))

    @property
    def last(self) -> int:
        """The number of the last chunk."""
        return last_chunk(self.count, self.chunk)

    def fields(self) -> Iterator[Field]:
        yield Field("mask", self.count, self.window)
        for t in range(self.thresholds):
            yield Field(f"alpha{t}", self.count, self.alpha_bits, xor=True)
        yield from self.guard_fields(self.count, self.guards)
        for j, start, stop in self.parts():
            for b in range(len(self.blocks)):
                yield Field(f"equal{j}.{b}", (stop - start) * self.row_bytes(b), 8, derived=True, xor=True, part=j)
        yield from self.outcome_fields()

    def correlate(self, masks: Values, kernels: Kernels, standing: Standing) -> Iterator[Array]:
        r = masks["mask"]
        yield from self.guard_tables(r, self.guards, kernels)
        for _, start, stop in self.parts():
            for b in range(len(self.blocks)):
                rows = kernels.xp.zeros((stop - start, self.row_bytes(b)), dtype=np.uint8)
                kernels.flip_bits(rows, self.block_of(r[start:stop], b))
                yield rows.reshape(-1)
        yield from self.outcomes(masks, kernels)

    @abstractmethod
    def outcome_fields(self) -> Iterator[Field]:
        """What turns opened outcome bits into shares."""

    @abstractmethod
    def outcomes(self, masks: Values, kernels: Kernels) -> Iterator[Array]: ...

    @property
    def opened(self) -> int:
        return self.count * (whole_bytes(self.window) + self.thresholds * whole_bytes(self.outcome_bits))


@dataclass(frozen=True)
class Less(Comparison):
    """Law, for every element and threshold: bit e of the row table_t is msb(r) xor L(e xor alpha_t) xor beta_t,
    xor-shared, and bit_t is beta_t, shared additively; beta_t is the bit of alpha_t above the outcome bits."""

    rounds = 3

    @property
    def alpha_bits(self) -> int:
        return self.outcome_bits + 1

    @property
    def table_bytes(self) -> int:
        """Bytes of one element's row of a table."""
        return max(1, (1 << self.outcome_bits) // 8)

    def outcome_fields(self) -> Iterator[Field]:
        for j, start, stop in self.parts():
            for t in range(self.thresholds):
                yield Field(f"table{j}.{t}", (stop - start) * self.table_bytes, 8, derived=True, xor=True,
                            part=j)
        for t in range(self.thresholds):
            yield Field(f"bit{t}", self.count, self.width, derived=True, part=self.last)

    def outcomes(self, masks: Values, kernels: Kernels) -> Iterator[Array]:
        for _, start, stop in self.parts():
            for t in range(self.thresholds):
                yield kernels.outcome_rows(masks["mask"][start:stop], masks[f"alpha{t}"][start:stop], self.window,
                                           len(self.blocks))
        for t in range(self.thresholds):
            yield masks[f"alpha{t}"] >> np.uint64(self.outcome_bits)

    @property
    def opened(self) -> int:
        return super().opened + self.count * whole_bytes(self.thresholds)


@dataclass(frozen=True)
class Relu(Comparison):
    """Law, for every element: entry e of the table, with L = L(e xor alpha) and c = msb(r) xor L, is c; then what turns
    u into relu: (1 - c)(r - L 2^window) and, when width > window, c r. One threshold, which is 0."""

    rounds = 2

    @property
    def columns(self) -> int:
        return 2 if self.width <= self.window else 3

    def outcome_fields(self) -> Iterator[Field]:
        size = (1 << self.outcome_bits) * self.columns
        for j, start, stop in self.parts():
            yield Field(f"table{j}", (stop - start) * size, self.width, derived=True, part=j)

    def outcomes(self, masks: Values, kernels: Kernels) -> Iterator[Array]:
        for _, start, stop in self.parts():
            yield kernels.outcome_tables(masks["mask"][start:stop], masks["alpha0"][start:stop], self.window,
                                         len(self.blocks), self.columns)
