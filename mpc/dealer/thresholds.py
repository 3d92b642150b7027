"""Kinds of look-ups that tell which rows reach public thresholds: one bit per value and threshold, to be counted along
the row, and one bit per row and threshold, which says whether its counts are 0 (see `mpc/ops/thresholds`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from secformer.mpc.dealer.kinds import CHUNK, Array, Field, Guards, Kind, Standing, Values, chunks, last_chunk
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.words import whole_bytes
from secformer.mpc.ring import mask

PLANE = 64        # elements whose opened bits share a word
MOST_COUNT = 255  # values whose count fits a byte
MOST_SEGMENTS = 4  # of a row: tables of 16 entries
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
            yield Field(f"equal{j}", (stop - start) * self.row_bytes, 8, derived=True, xor=True, part=j)
        last = last_chunk(self.count, self.chunk)
        for t in range(self.thresholds):
            yield Field(f"bit{t}", self.count, self.width, derived=True, part=last)

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
    """Whether all counts of a row are 0, of `count` rows with `segments` counts for each threshold. Counts stand by
    threshold, then by segment, then by row. Law: for q = threshold * segments + segment and a row's mask r, the row of
    equal_q has exactly bit r of 2^window set. Entry e of the row's table_t is 0 where e is all ones xor alpha's bits
    from bit t * segments on, and 1 elsewhere; shared additively."""

    count: int
    window: int
    width: int
    thresholds: int
    segments: int = 1
    chunk: int = CHUNK

    rounds = 2

    @property
    def places(self) -> int:
        """Opened bits of a row."""
        return self.thresholds * self.segments

    @property
    def row_bytes(self) -> int:
        return max(1, (1 << self.window) // 8)

    @property
    def entries(self) -> int:
        """Of a row's table."""
        return 1 << self.segments

    def parts(self) -> Iterator[tuple[int, int, int, int]]:
        """Chunks: place, number, start, stop."""
        size = min(self.chunk, max(1, self.chunk * ROW_BYTES // self.row_bytes))
        return ((q, j, start, stop) for q in range(self.places)
                for j, (start, stop) in enumerate(chunks(self.count, size)))

    def fields(self) -> Iterator[Field]:
        yield Field("mask", self.places * self.count, self.window)
        yield Field("alpha", self.count, self.places, xor=True)
        for q, j, start, stop in self.parts():
            yield Field(f"equal{q}.{j}", (stop - start) * self.row_bytes, 8, derived=True, xor=True, part=j)
        for t in range(self.thresholds):
            yield Field(f"table{t}", self.count * self.entries, self.width, derived=True)

    def correlate(self, masks: Values, kernels: Kernels, standing: Standing) -> Iterator[Array]:
        r, alpha = masks["mask"].reshape(self.places, self.count), masks["alpha"]
        for q, _, start, stop in self.parts():
            yield _one_hot(r[q, start:stop], self.row_bytes, kernels)
        e, ones = kernels.xp.arange(self.entries, dtype=np.uint64), mask(self.segments)
        for t in range(self.thresholds):
            own = (alpha >> np.uint64(t * self.segments)) & ones
            yield ((own[:, None] ^ e) != ones).astype(np.uint64).reshape(-1)

    @property
    def opened(self) -> int:
        return self.count * (self.places * whole_bytes(self.window) + whole_bytes(self.places))


def segments_of(columns: int, thresholds: int) -> tuple[int, int]:
    """How a row's values are counted: so many segments of at most so many values. Segments whose counts fit a byte save
    a byte per value and threshold; the table of their bits doubles with each."""
    segments = -(-columns // MOST_COUNT)
    if segments > MOST_SEGMENTS or segments * thresholds > PLANE:
        segments = 1
    return segments, -(-columns // segments)


def _one_hot(values: Array, row_bytes: int, kernels: Kernels) -> Array:
    """Rows of bytes in which only bit `value` is set, flat."""
    rows = kernels.xp.zeros((values.size, row_bytes), dtype=np.uint8)
    kernels.flip_bits(rows, values)
    return rows.reshape(-1)
