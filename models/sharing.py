"""What owners hand to the parties: additive shares, expanded tensor by tensor when they are asked for.

Party 1's share of everything is expanded from a seed; party 0's is the encoded value minus that. The twin gets the
values themselves. V vocabulary, S segments, C hidden, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from secformer.models.config import BertSpec
from secformer.models.encoder import Parameters
from secformer.models.layout import Layout
from secformer.models.tokens import Batch
from secformer.models.weights import Checkpoint
from secformer.mpc.fixed import encode
from secformer.mpc.prg import Stream
from secformer.mpc.ring import WORD_BITS, word_type
from secformer.mpc.session import Session

BLOCK = 1 << 20  # elements encoded at a time


class Inputs(Protocol):
    """One party's view of shared tensors, by name."""

    def get(self, name: str) -> np.ndarray: ...


@dataclass(frozen=True)
class SeedShares:
    """Party 1's shares: uniform words of the seed. 32-bit words where a tensor needs no more."""

    layout: Layout
    seed: bytes

    def get(self, name: str) -> np.ndarray:
        tensor = self.layout[name]
        return uniform(self.seed, name, tensor.shape, tensor.width)


@dataclass(frozen=True)
class OwnerShares:
    """Party 0's shares: the model owner's encoded tensor minus party 1's share."""

    layout: Layout
    seed: bytes
    checkpoint: Checkpoint
    frac: int

    def get(self, name: str) -> np.ndarray:
        tensor = self.layout[name]
        words = uniform(self.seed, name, tensor.shape, tensor.width)
        flat, values = words.reshape(-1), tensor.build(self.checkpoint).reshape(-1)
        for i in range(0, flat.size, BLOCK):
            part = slice(i, i + BLOCK)
            flat[part] = encode(values[part], self.frac).astype(words.dtype, copy=False) - flat[part]
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
    """Shapes, for the plan recorder."""

    layout: Layout

    def get(self, name: str) -> np.ndarray:
        return np.broadcast_to(np.uint64(0), self.layout[name].shape)


def provision(s: Session, inputs: Inputs, layout: Layout) -> Parameters:
    """Brings a model's tensors into a session: matrices as standing operands, the rest as plain shares."""
    parameters = Parameters()
    with s.scope("provision"):
        for name, tensor in layout.items():
            words = inputs.get(name)
            if tensor.standing:
                parameters.matrices[name] = s.open_weight(words, width=tensor.width)
            else:
                parameters.vectors[name] = s.accept(words, width=tensor.width)
    return parameters


def uniform(seed: bytes, name: str, shape: tuple[int, ...], width: int = WORD_BITS) -> np.ndarray:
    """Uniform words of a named stream: uint32 for widths up to 32, else uint64."""
    dtype = np.dtype(word_type(width))
    raw = Stream(seed, "share", name).read(int(np.prod(shape)) * dtype.itemsize)
    return np.asarray(raw).view(dtype).reshape(shape)


@dataclass(frozen=True)
class Request:
    """One batch's input, as a party gets it: `words()` makes its share when asked.

    private  one-hot rows (N, V + S), two ones a row: the word and the segment; frac 0, the table's width
    client   embedding sums (N, C) of the session's fractional bits
    """

    words: Callable[[], Any]
    shape: tuple[int, int]
    private: bool
    width: int = WORD_BITS

    def ghost(self) -> Request:
        """The same request for the plan recorder, which looks at shapes alone."""
        return replace(self, words=lambda: np.broadcast_to(np.uint64(0), self.shape))


def one_hot(batch: Batch, spec: BertSpec, dtype: Any) -> np.ndarray:
    """(N, V + S): 1 at each token's word and at V plus its segment."""
    rows = np.zeros((batch.tokens, spec.vocab + spec.types), dtype)
    each = np.arange(batch.tokens)
    rows[each, batch.ids] = 1
    rows[each, spec.vocab + batch.segments] = 1
    return rows


def private_requests(batch: Batch, spec: BertSpec, width: int, seed: bytes) -> tuple[Request, Request]:
    """Both parties' shares of secret token ids."""
    shape = (batch.tokens, spec.vocab + spec.types)

    def party0() -> np.ndarray:
        mask = uniform(seed, "one-hot", shape, width)
        return np.asarray(one_hot(batch, spec, mask.dtype) - mask)

    def party1() -> np.ndarray:
        return uniform(seed, "one-hot", shape, width)

    return Request(party0, shape, True, width), Request(party1, shape, True, width)


def client_requests(sums: np.ndarray, frac: int, seed: bytes) -> tuple[Request, Request]:
    """Both parties' shares of embedding sums that the client looked up itself."""

    def party0() -> np.ndarray:
        return np.asarray(encode(sums, frac) - uniform(seed, "embeddings", sums.shape))

    def party1() -> np.ndarray:
        return uniform(seed, "embeddings", sums.shape)

    shape = (sums.shape[0], sums.shape[1])
    return Request(party0, shape, False), Request(party1, shape, False)
