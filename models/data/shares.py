"""What the model's owner hands to the parties: additive shares, made tensor by tensor when they are asked for.

One party's shares (party 1's, unless the owner chooses party 0) are expanded from a seed. The other party's shares are
the encoded values minus those. The twin gets the values themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from secformer.models.data.checkpoint import Checkpoint
from secformer.models.data.tensors import Layout
from secformer.mpc.fixed import encode
from secformer.mpc.kernels import Kernels
from secformer.mpc.prg import Stream
from secformer.mpc.ring import WORD_BITS, word_type

BLOCK = 1 << 20  # elements encoded at a time


class Tensors(Protocol):
    """One party's view of a model's tensors, by the names of a layout."""

    @property
    def layout(self) -> Layout: ...

    def get(self, name: str) -> np.ndarray: ...


@dataclass(frozen=True)
class SeedShares:
    """The shares that are expanded from a seed: uniform words, of 32 bits where a tensor needs no more."""

    layout: Layout
    seed: bytes = field(repr=False)

    def get(self, name: str) -> np.ndarray:
        tensor = self.layout[name]
        return np.asarray(uniform(self.seed, name, tensor.shape, tensor.width))


@dataclass(frozen=True)
class OwnerShares:
    """The other party's shares: the owner's encoded tensors minus the shares of `SeedShares`, from the same seed."""

    layout: Layout
    seed: bytes = field(repr=False)
    checkpoint: Checkpoint
    frac: int

    def get(self, name: str) -> np.ndarray:
        tensor = self.layout[name]
        words: np.ndarray = uniform(self.seed, name, tensor.shape, tensor.width)
        flat, start = words.reshape(-1), 0
        for block in tensor.blocks(self.checkpoint, BLOCK):
            values = block.reshape(-1)
            for i in range(0, values.size, BLOCK):
                here = values[i : i + BLOCK]
                mine = flat[start + i : start + i + here.size]
                mine[:] = encode(here, self.frac).astype(words.dtype, copy=False) - mine
            start += values.size
        return words


@dataclass(frozen=True)
class PlainTensors:
    """The tensors themselves, for the twin."""

    layout: Layout
    checkpoint: Checkpoint

    def get(self, name: str) -> np.ndarray:
        return self.layout[name].build(self.checkpoint)


@dataclass(frozen=True)
class GhostTensors:
    """Zeros of the tensors' shapes, for the plan recorder."""

    layout: Layout

    def get(self, name: str) -> np.ndarray:
        return np.broadcast_to(np.uint64(0), self.layout[name].shape)


def uniform(seed: bytes, name: str, shape: tuple[int, ...], width: int = WORD_BITS,
            kernels: Kernels | None = None) -> Any:
    """Uniform words of a named stream: uint32 for widths up to 32 bits, else uint64. They are where `kernels` compute,
    by default on the host."""
    dtype = np.dtype(word_type(width))
    raw = Stream(seed, "share", name, kernels=kernels).read(int(np.prod(shape)) * dtype.itemsize)
    return raw.view(dtype).reshape(shape)
