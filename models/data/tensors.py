"""The secret tensors of a model as the protocol uses them: names, shapes, and how each is built from a checkpoint.

Matrices are stored (in, out), the transpose of PyTorch's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secformer.models.data.checkpoint import Checkpoint
from secformer.mpc.errors import RangeError
from secformer.mpc.ring import WORD_BITS

TABLE = "embedding.table"  # the table that one-hot rows are multiplied with, in every family
NARROW = (24, 32)          # widths in bits, a whole number of bytes, at which a table may be looked up


@dataclass(frozen=True)
class Part:
    """A tensor of the checkpoint, and what is done to its values.

    names      the names that the tensor may have; the first one that the checkpoint has is used
    shape      the shape in which the tensor is stored
    transpose  whether the stored tensor is transposed
    factor     what the values are multiplied with
    rows       the first and the last but one of the stored rows that are taken, such as Q's of a matrix of Q, K and V;
               None: all
    columns    the same of the stored columns
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    transpose: bool = False
    factor: float = 1.0
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] | None = None

    @property
    def taken(self) -> tuple[int, ...]:
        """The shape of what is taken, before it is transposed."""
        sizes = list(self.shape)
        for axis, ends in ((0, self.rows), (1, self.columns)):
            sizes[axis : axis + 1] = sizes[axis : axis + 1] if ends is None else [ends[1] - ends[0]]
        return tuple(sizes)

    def of(self, values: Any) -> Any:
        """What is taken of the stored values, an array of any library, and what becomes of it."""
        values = values if self.rows is None else values[self.rows[0] : self.rows[1]]
        values = values if self.columns is None else values[:, self.columns[0] : self.columns[1]]
        values = values.T if self.transpose else values
        return values if self.factor == 1.0 else values * self.factor

    def name(self, checkpoint: Checkpoint) -> str:
        return next((n for n in self.names if n in checkpoint), self.names[0])


class Formula(ABC):
    """How a tensor is computed from parts of the checkpoint, where it is not these parts side by side."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]: ...

    @abstractmethod
    def __call__(self, xp: Any, *parts: Any) -> Any:
        """The tensor, from arrays of the library xp: `numpy`, or `torch` in training. Spell keywords as both do."""


@dataclass(frozen=True)
class Gained(Formula):
    """Matrices side by side, (inner, outer), of which each row is multiplied with its gain. Parts: the gains (inner,),
    then the matrices."""

    inner: int
    outer: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner, self.outer

    def __call__(self, xp: Any, *parts: Any) -> Any:
        gains, *matrices = parts
        return xp.concatenate(matrices, axis=-1) * gains[:, None]


@dataclass(frozen=True)
class Tensor:
    """A secret tensor: parts, joined along `axis`, or what the formula makes of them.

    standing  the tensor is a right operand of products, opened once under a standing mask
    width     bits per word
    """

    parts: tuple[Part, ...]
    axis: int = -1
    standing: bool = False
    width: int = WORD_BITS
    formula: Formula | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        if self.formula is not None:
            return self.formula.shape
        shapes = [p.taken[::-1] if p.transpose else p.taken for p in self.parts]
        joined = list(shapes[0])
        joined[self.axis] = sum(s[self.axis] for s in shapes)
        return tuple(joined)

    def blocks(self, checkpoint: Checkpoint, elements: int) -> Iterator[np.ndarray]:
        """The tensor in float64 and in blocks of rows, of about so many elements where nothing but rows is joined; else
        in one. Raises ModelError as `Checkpoint.read`."""
        if self.axis or self.formula or any(p.transpose or p.rows or p.columns or p.factor != 1.0 for p in self.parts):
            yield self.build(checkpoint)
            return
        for p in self.parts:
            yield from checkpoint.blocks(p.name(checkpoint), p.shape, elements)

    def build(self, checkpoint: Checkpoint) -> np.ndarray:
        """The tensor in float64. Raises ModelError as `Checkpoint.read`."""
        arrays = [p.of(checkpoint.read(p.name(checkpoint), p.shape)) for p in self.parts]
        if self.formula is not None:
            return np.ascontiguousarray(self.formula(np, *arrays))
        return np.ascontiguousarray(arrays[0] if len(arrays) == 1 else np.concatenate(arrays, self.axis))


Layout = Mapping[str, Tensor]


def matrix(name: str, inner: int, outer: int) -> Tensor:
    """A PyTorch linear layer's weight, (outer, inner) in the checkpoint, as a standing matrix (inner, outer)."""
    return Tensor((Part((name,), (outer, inner), True),), standing=True)


def vector(name: str, size: int) -> Tensor:
    """A bias or a gain (size,)."""
    return Tensor((Part((name,), (size,)),))


def linear_layout(here: str, there: str, inner: int, outer: int, *, bias: bool = True) -> dict[str, Tensor]:
    """Weight and, where the model has one, bias of the checkpoint's linear layer `there`, under the program's name
    `here`."""
    found = {f"{here}.weight": matrix(f"{there}.weight", inner, outer)}
    return found | ({f"{here}.bias": vector(f"{there}.bias", outer)} if bias else {})


def norm_layout(here: str, there: str, size: int, *, bias: bool = True) -> dict[str, Tensor]:
    """Weight and, where the model has one, bias of the checkpoint's LayerNorm `there`, under the program's name
    `here`."""
    return {f"{here}.{k}": vector(f"{there}.{k}", size) for k in ("weight", "bias")[: 2 if bias else 1]}


def rows_layout(here: str, there: str, size: int, factors: Sequence[float], *, bias: bool = True) -> dict[str, Tensor]:
    """Weight and, where the model has one, bias of the checkpoint's linear layer `there`, which joins several square
    ones of this size, each times its factor."""
    def joined(end: str, shape: tuple[int, ...], turned: bool) -> tuple[Part, ...]:
        return tuple(Part((f"{there}.{end}",), (size * len(factors), *shape), turned, factor,
                          (i * size, (i + 1) * size)) for i, factor in enumerate(factors))

    found = {f"{here}.weight": Tensor(joined("weight", (size,), True), standing=True)}
    return found | ({f"{here}.bias": Tensor(joined("bias", (), False))} if bias else {})


def parts(layout: Layout) -> Iterator[Part]:
    for tensor in layout.values():
        yield from tensor.parts


def verify(layout: Layout, checkpoint: Checkpoint, bound: float) -> None:
    """Reads every tensor. Raises ModelError as `Checkpoint.read`, and RangeError where a value is not below `bound`."""
    for part in dict.fromkeys(parts(layout)):
        checkpoint.reach(part.name(checkpoint), part.shape, bound / max(1.0, part.factor))
    for name, tensor in layout.items():
        if tensor.formula is not None and not (top := np.abs(tensor.build(checkpoint)).max(initial=0.0)) < bound:
            made_of = ", ".join(p.name(checkpoint) for p in tensor.parts)
            raise RangeError(f"{checkpoint.folder}: {name}, which is computed from {made_of}, holds the value {top:g}; "
                             f"fixed point can hold only |v| < {bound:g}. Raise `magnitude`, or rescale the model")


def table_width(table: Tensor, checkpoint: Checkpoint, frac: int, bound: float) -> int:
    """The narrowest width, in bits, at which the table may be looked up.

    A result is the sum of one row per part of the table. The width holds such a sum, with two bits of headroom for a
    lift. Raises RangeError where a sum may reach `bound`.
    """
    reach = sum(checkpoint.reach(p.name(checkpoint), p.shape, bound) for p in table.parts)
    if not reach < bound:
        raise RangeError(f"rows of {' plus '.join(p.names[0] for p in table.parts)} add up to values as large as "
                         f"{reach:g}; fixed point can hold only |v| < {bound:g}. Raise `magnitude`, or rescale the "
                         f"model")
    return next((w for w in NARROW if reach + 2.0**-frac < 2.0 ** (w - 2 - frac)), WORD_BITS)
