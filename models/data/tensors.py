"""The secret tensors of a model as the protocol uses them: names, shapes, and how each is built from a checkpoint.

Matrices are stored (in, out), the transpose of PyTorch's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
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
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    transpose: bool = False
    factor: float = 1.0

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
        shapes = [p.shape[::-1] if p.transpose else p.shape for p in self.parts]
        joined = list(shapes[0])
        joined[self.axis] = sum(s[self.axis] for s in shapes)
        return tuple(joined)

    def blocks(self, checkpoint: Checkpoint, elements: int) -> Iterator[np.ndarray]:
        """The tensor in float64 and in blocks of rows, of about so many elements where nothing but rows is joined; else
        in one. Raises ModelError as `Checkpoint.read`."""
        if self.axis or any(p.transpose or p.factor != 1.0 for p in self.parts):
            yield self.build(checkpoint)
            return
        for p in self.parts:
            yield from checkpoint.blocks(p.name(checkpoint), p.shape, elements)

    def build(self, checkpoint: Checkpoint) -> np.ndarray:
        """The tensor in float64. Raises ModelError as `Checkpoint.read`."""
        arrays = [checkpoint.read(p.name(checkpoint), p.shape) for p in self.parts]
        arrays = [(a.T if p.transpose else a) * p.factor if p.transpose or p.factor != 1.0 else a
                  for a, p in zip(arrays, self.parts, strict=True)]
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


def linear_layout(here: str, there: str, inner: int, outer: int) -> dict[str, Tensor]:
    """Weight and bias of the checkpoint's linear layer `there`, under the program's name `here`."""
    return {f"{here}.weight": matrix(f"{there}.weight", inner, outer), f"{here}.bias": vector(f"{there}.bias", outer)}


def norm_layout(here: str, there: str, size: int) -> dict[str, Tensor]:
    """Weight and bias of the checkpoint's LayerNorm `there`, under the program's name `here`."""
    return {f"{here}.{k}": vector(f"{there}.{k}", size) for k in ("weight", "bias")}


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
