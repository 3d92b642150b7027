"""The kinds of correlated randomness: for each its fields, its law, and how the dealer makes it.

A field is an array of shares. Masks are uniform: each party expands its own share from its own seed. Derived fields
satisfy the kind's law: party 0 expands its share from its seed, party 1 receives a correction, the only material that
travels. Kinds are frozen values, so that a plan of them can be compared and hashed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from secformer.mpc.errors import RangeError
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.tables import STEP_BITS
from secformer.mpc.kernels.words import Guard, Mask, Piece, drawn, whole_bytes
from secformer.mpc.net.wire import Tag
from secformer.mpc.prg import MAX_BLOCKS, spelt
from secformer.mpc.ring import WORD_BITS, mask

Array = Any
Shape = tuple[int, ...]
Values = Mapping[str, Array]
Standing = Callable[[int], Array]
Guards = tuple[Guard, ...]
GUARD_BYTES = 1 << 25  # of tables that one field has, where a guard alone does not have more
PARCEL_BYTES = 1 << 25  # of a message with several fields, at most
CHUNK = Kernels.chunk  # elements whose material is made, sent and used at once where a kind cuts it up


@dataclass(frozen=True)
class Field:
    """One array of shares: `count` words below 2^bits, combined by addition mod 2^64, or by xor. Masks are known to the
    dealer mod 2^bits; with `carries`, as the sum of the parties' words. Derived fields of one `part` of the material
    may travel together (see `Kind.parcels`). A mask of a `cache` stands: it is the first words of the mask of that
    number among the run's caches, whatever the correlation."""

    name: str
    count: int
    bits: int
    derived: bool = False
    xor: bool = False
    carries: bool = False
    part: int = 0
    cache: int | None = None

    @cached_property
    def piece(self) -> Piece:
        """How a share of it is drawn and travels. Raises RangeError where no stream gives so much."""
        if drawn(self.count, self.bits) > MAX_BLOCKS:
            raise RangeError(f"{self.name} has {self.count} words; a stream gives 256 GiB at most: use several")
        return Piece(self.count, self.bits, self.xor and self.derived)


@dataclass(frozen=True)
class Parcel:
    """Fields that are expanded together: derived ones, which the dealer also sends to party 1 in one message, or masks.
    """

    fields: tuple[Field, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields)

    @cached_property
    def spelt(self) -> tuple[bytes, ...]:
        """The names as keys are derived from them."""
        return tuple(spelt(f.name) for f in self.fields)

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        return tuple(f.piece for f in self.fields)

    @cached_property
    def masks(self) -> tuple[Mask, ...]:
        """How the dealer knows them, where they are masks."""
        return tuple(Mask(f.count, f.bits, f.xor, f.carries) for f in self.fields)

    @cached_property
    def nbytes(self) -> int:
        return sum(piece.nbytes for piece in self.pieces)

    @cached_property
    def _named(self) -> tuple[str, int, int]:
        return self.fields[0].name, max(f.bits for f in self.fields), sum(f.count for f in self.fields)

    def tag(self, index: int) -> Tag:
        """What the message is, in correlation number `index`: named after its first field."""
        return Tag(index, *self._named)


class Layout(NamedTuple):
    """The fields of a kind, as they are looked up run after run.

    fields   by name
    masks    of the run, all in one parcel, and those of caches, each in one of its own
    parcels  of derived fields, in the order in which they are dealt
    parcel   of each field, by name
    """

    fields: Mapping[str, Field]
    masks: tuple[Parcel, ...]
    parcels: tuple[Parcel, ...]
    parcel: Mapping[str, Parcel]


@dataclass(frozen=True)
class Kind(ABC):
    """A correlation to be asked for.

    rounds  message exchanges of the verb that uses it
    """

    rounds: ClassVar[int] = 1

    @abstractmethod
    def fields(self) -> Iterator[Field]:
        """Masks first, then derived fields in the order in which they are dealt and used."""

    @abstractmethod
    def correlate(self, masks: Values, kernels: Kernels, standing: Standing) -> Iterator[Array]:
        """The derived fields' values, in order, from the masks' values (both parties' shares combined)."""

    @property
    @abstractmethod
    def opened(self) -> int:
        """Bytes that each party sends when it uses this correlation."""

    def derived(self) -> Iterator[Field]:
        return (f for f in self.fields() if f.derived)

    def parcels(self) -> Iterator[Parcel]:
        """The derived fields in messages: neighbours of one part, up to `PARCEL_BYTES`. Material that is made and used
        in chunks has a part for each, so that it moves chunk by chunk."""
        fields: list[Field] = []
        size = 0
        for field in self.derived():
            size += field.piece.nbytes
            if fields and (field.part != fields[0].part or size > PARCEL_BYTES):
                yield Parcel(tuple(fields))
                fields, size = [], field.piece.nbytes
            fields.append(field)
        if fields:
            yield Parcel(tuple(fields))

    def guard_fields(self, count: int, guards: Guards, name: str = "guard") -> Iterator[Field]:
        """The tables of an opening's guards: fields of bytes, numbered after `name`; see `together`."""
        return (Field(f"{name}{g}", 8 * count * len(part), 8, derived=True, xor=True)
                for g, part in enumerate(together(count, guards)))

    def guard_tables(self, r: Array, guards: Guards, kernels: Kernels, negated: bool = False) -> Iterator[Array]:
        """Law of `guard_fields`, for an opening under the mask r, or -r where `negated`: the words of
        `Kernels.guard_tables`, as bytes."""
        return (kernels.guard_tables(r, part, negated).view(np.uint8) for part in together(r.size, guards))

    @cached_property
    def layout(self) -> Layout:
        """What `fields` and `parcels` say, worked out once."""
        fields, parcels = tuple(self.fields()), tuple(self.parcels())
        own = tuple(f for f in fields if not f.derived and f.cache is None)
        masks = ((Parcel(own),) if own else ()) + tuple(Parcel((f,)) for f in fields if f.cache is not None)
        return Layout({f.name: f for f in fields}, masks, parcels,
                      {name: parcel for parcel in masks + parcels for name in parcel.names})

    @property
    def corrections(self) -> int:
        """Bytes that the dealer sends to party 1."""
        return sum(f.count * whole_bytes(f.bits) for f in self.derived())


@dataclass(frozen=True)
class Lift(Kind):
    """Law, for r the integer sum of the parties' mask words, with its carry c = r >> window: wraps are first
    c + (bit window - 1 of r) of every element, then c of every element, mod 2^(width - window). Guards have tables."""

    count: int
    window: int
    width: int = WORD_BITS
    guards: Guards = ()

    @property
    def wrap_bits(self) -> int:
        return max(0, self.width - self.window)

    def fields(self) -> Iterator[Field]:
        yield Field("mask", self.count, self.window, carries=True)
        if self.wrap_bits:
            yield Field("wraps", 2 * self.count, self.wrap_bits, derived=True)
        yield from self.guard_fields(self.count, self.guards)

    def correlate(self, masks: Values, kernels: Kernels, standing: Standing) -> Iterator[Array]:
        if self.wrap_bits:
            yield kernels.wraps(masks["mask"], self.window)
        yield from self.guard_tables(masks["mask"], self.guards, kernels)

    @property
    def opened(self) -> int:
        return self.count * whole_bytes(self.window)


@dataclass(frozen=True)
class SeriesMask(Kind):
    """Law: words[k - 1] = cos(k t) and words[K + k - 1] = sin(k t), k = 1..K, t = 2 pi r / 2^(bits - spare), with
    `frac` fractional bits, mod 2^width, for the uniform mask r below 2^bits. Dealt in chunks of so many elements.
    Guards have tables; `spare` bits above a period are opened for them alone."""

    count: int
    bits: int
    harmonics: int
    width: int
    frac: int = 20
    chunk: int = CHUNK
    spare: int = 0
    guards: Guards = ()

    def fields(self) -> Iterator[Field]:
        yield Field("mask", self.count, self.bits)
        yield from self.guard_fields(self.count, self.guards)
        for j, (start, stop) in enumerate(chunks(self.count, self.chunk)):
            yield Field(f"words{j}", 2 * self.harmonics * (stop - start), self.width, derived=True, part=j)

    def correlate(self, masks: Values, kernels: Kernels, standing: Standing) -> Iterator[Array]:
        yield from self.guard_tables(masks["mask"], self.guards, kernels)
        bits, r = self.bits - self.spare, masks["mask"]
        r = r & mask(bits) if self.spare else r
        for start, stop in chunks(self.count, self.chunk):
            yield kernels.harmonics(r[start:stop], bits, self.harmonics, self.frac).reshape(-1)

    @property
    def opened(self) -> int:
        return self.count * whole_bytes(self.bits)


@dataclass(frozen=True)
class ExpMask(Kind):
    """Law: entry U of the table is e^b with `frac` fractional bits, mod 2^64, for U = 0..2^period_bits / 16 - 1, where
    b = 16 U - r / 2^kept, moved by periods of 2^period_bits to where it is at most top / 2^kept and the largest such,
    for the uniform mask r below 2^bits and kept = bits - spare - period_bits. Guards have tables; `spare` bits above a
    period are opened for them alone."""

    count: int
    bits: int
    period_bits: int
    top: int
    frac: int
    chunk: int = CHUNK
    spare: int = 0
    guards: Guards = ()

    @property
    def entries(self) -> int:
        return 1 << (self.period_bits - STEP_BITS)

    def fields(self) -> Iterator[Field]:
        yield Field("mask", self.count, self.bits)
        yield from self.guard_fields(self.count, self.guards)
        for j, (start, stop) in enumerate(chunks(self.count, self.chunk)):
            yield Field(f"table{j}", self.entries * (stop - start), 64, derived=True, part=j)

    def correlate(self, masks: Values, kernels: Kernels, standing: Standing) -> Iterator[Array]:
        yield from self.guard_tables(masks["mask"], self.guards, kernels)
        bits, r = self.bits - self.spare, masks["mask"]
        r = r & mask(bits) if self.spare else r
        for start, stop in chunks(self.count, self.chunk):
            yield kernels.powers(r[start:stop], bits, self.period_bits, self.top, self.frac).reshape(-1)

    @property
    def opened(self) -> int:
        return self.count * whole_bytes(self.bits)


@dataclass(frozen=True)
class WeightMask(Kind):
    """The standing mask of weight number `index`: uniform, known to the dealer for as long as the weight is open."""

    index: int
    shape: Shape
    width: int

    def fields(self) -> Iterator[Field]:
        yield Field("mask", math.prod(self.shape), self.width)

    def correlate(self, masks: Values, kernels: Kernels, standing: Standing) -> Iterator[Array]:
        return iter(())

    @property
    def opened(self) -> int:
        return math.prod(self.shape) * whole_bytes(self.width)


@dataclass(frozen=True)
class Witness(Kind):
    """A mask under which a value is opened for its guards' tables alone."""

    count: int
    bits: int
    guards: Guards

    def fields(self) -> Iterator[Field]:
        yield Field("mask", self.count, self.bits)
        yield from self.guard_fields(self.count, self.guards)

    def correlate(self, masks: Values, kernels: Kernels, standing: Standing) -> Iterator[Array]:
        yield from self.guard_tables(masks["mask"], self.guards, kernels)

    @property
    def opened(self) -> int:
        return self.count * whole_bytes(self.bits)


@dataclass(frozen=True)
class Coin(Kind):
    """Uniform words that both parties learn when they open them."""

    count: int

    def fields(self) -> Iterator[Field]:
        yield Field("mask", self.count, WORD_BITS)

    def correlate(self, masks: Values, kernels: Kernels, standing: Standing) -> Iterator[Array]:
        return iter(())

    @property
    def opened(self) -> int:
        return 8 * self.count


def chunks(count: int, size: int = CHUNK) -> Iterator[tuple[int, int]]:
    """[start, stop) ranges of at most `size` elements."""
    return ((start, min(start + size, count)) for start in range(0, count, size))


def last_chunk(count: int, size: int) -> int:
    """The number of the last of `chunks`, from 0."""
    return max(0, -(-count // size) - 1)


def together(count: int, guards: Guards) -> list[Guards]:
    """The guards of an opening of `count` values, in groups whose tables are dealt as one field."""
    size = max(1, GUARD_BYTES // max(1, 8 * count))
    return [guards[start : start + size] for start in range(0, len(guards), size)]
