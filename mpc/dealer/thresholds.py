"""Kinds of look-ups that tell which rows reach public thresholds: one bit per value and threshold, to be counted along
the row, and one bit per row and threshold, which says whether a count is 0 (see `mpc/ops/thresholds`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from secformer.mpc.dealer.kinds import CHUNK, Array, Field, Guards, Kind, Standing, Values, chunks
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.words import whole_bytes
from secformer.mpc.ring import mask

PLANE = 64        # elements whose opened bits share a word
ROW_BYTES = 16    # bytes of a table's row that chunks are sized for: the row of an opening of one byte


@dataclass(frozen=True)
class Reached(Kind):
    """Law, for element i with mask r: its row of `equal` has exactly the bit set that the low window - 1 bits of r
    name. bit_t is bit i of the words alpha_t (64 elements a word) xor the top bit of r, shared additively. Guards have
    tables."""

    count: int
    window: int
    width: int
    thresholds: int
    chunk: int = CHUNK
    guards: Guards = ()

    rounds = 2

    @property
    def row_bytes(self) -> int:
        return max(1, (1 << (self.window - 1)) // 8)

    @property
    def plane(self) -> int:
        """Words of the bits of one threshold."""
        return -(-self.count // PLANE)

    def parts(self) -> Iterator[tuple[int, int, int]]:
        """Chunks: number, start, stop."""
        return ((j, start, stop) for j, (start, stop) in enumerate(chunks(self.count, self.chunk)))

    def fields(self) -> Iterator[Field]:
        yield Field("mask", self.count, self.window)
        for t in range(self.thresholds):
            yield Field(f"alpha{t}", self.plane, PLANE, xor=True)
        yield from self.guard_fields(self.count, self.guards)
        for j, start, stop in self.parts():
            yield Field(f"equal{j}", (stop - start) * self.row_bytes, 8, derived=True, xor=True)
        for t in range(self.thresholds):
            yield Field(f"bit{t}", self.count, self.width, derived=True)

    def correlate(self, masks: Values, kernels: Kernels, standing: Standing) -> Iterator[Array]:
        r = masks["mask"]
        yield from self.guard_tables(r, self.guards, kernels)
        for _, start, stop in self.parts():
            yield _one_hot(r[start:stop] & mask(self.window - 1), self.row_bytes, kernels)
        for t in range(self.thresholds):
            yield kernels.signs(r, masks[f"alpha{t}"], self.window)

    @property
    def opened(self) -> int:
        return self.count * whole_bytes(self.window) + self.thresholds * self.plane * whole_bytes(PLANE)


@dataclass(frozen=True)
class Empty(Kind):
    """Whether counts are 0, of `count` rows for each threshold. Law, for every row and threshold t with mask r (masks
    lie row by row for one threshold after the other): the row of equal_t has exactly bit r set, of 2^window; bit_t is
    bit t of alpha, shared additively."""

    count: int
    window: int
    width: int
    thresholds: int
    chunk: int = CHUNK

    rounds = 2

    @property
    def row_bytes(self) -> int:
        return max(1, (1 << self.window) // 8)

    def parts(self) -> Iterator[tuple[int, int, int, int]]:
        """Chunks: threshold, number, start, stop."""
        size = min(self.chunk, max(1, self.chunk * ROW_BYTES // self.row_bytes))
        return ((t, j, start, stop) for t in range(self.thresholds)
                for j, (start, stop) in enumerate(chunks(self.count, size)))

    def fields(self) -> Iterator[Field]:
        yield Field("mask", self.thresholds * self.count, self.window)
        yield Field("alpha", self.count, self.thresholds, xor=True)
        for t, j, start, stop in self.parts():
            yield Field(f"equal{t}.{j}", (stop - start) * self.row_bytes, 8, derived=True, xor=True)
        for t in range(self.thresholds):
            yield Field(f"bit{t}", self.count, self.width, derived=True)

    def correlate(self, masks: Values, kernels: Kernels, standing: Standing) -> Iterator[Array]:
        r, alpha = masks["mask"].reshape(self.thresholds, self.count), masks["alpha"]
        for t, _, start, stop in self.parts():
            yield _one_hot(r[t, start:stop], self.row_bytes, kernels)
        for t in range(self.thresholds):
            yield (alpha >> np.uint64(t)) & np.uint64(1)

    @property
    def opened(self) -> int:
        return self.count * (self.thresholds * whole_bytes(self.window) + whole_bytes(self.thresholds))


def _one_hot(values: Array, row_bytes: int, kernels: Kernels) -> Array:
    """Rows of bytes in which only bit `value` is set, flat."""
    rows = kernels.xp.zeros((values.size, row_bytes), dtype=np.uint8)
    kernels.flip_bits(rows, values)
    return rows.reshape(-1)
