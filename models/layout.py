"""The secret tensors of a BERT as the protocol uses them: names, shapes, and how each is built from a checkpoint.

C hidden, I intermediate, V vocabulary, S segments, P positions, L labels. Matrices are stored (in, out), the
transpose of PyTorch's. Query, key and value are one matrix (C, 3C) with 1/sqrt(head_dim) folded into the query part
before it is encoded; words and segments are one table (V + S, C), looked up by one row with two ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from secformer.models.config import ENCODER, MASKED, QUESTION, SEQUENCE, TOKEN, BertSpec
from secformer.models.weights import Checkpoint
from secformer.mpc.errors import RangeError
from secformer.mpc.ring import WORD_BITS

WORDS = "embeddings.word_embeddings.weight"
SEGMENTS = "embeddings.token_type_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
TABLE = "embedding.table"
NARROW = (24, 32)  # widths, in whole bytes, at which a table may be looked up


@dataclass(frozen=True)
class Part:
    """A checkpoint tensor (its first name that exists), its stored shape, and what is done to it."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    transpose: bool = False
    factor: float = 1.0

    def name(self, checkpoint: Checkpoint) -> str:
        return next((n for n in self.names if n in checkpoint), self.names[0])


@dataclass(frozen=True)
class Tensor:
    """Parts joined along `axis`. `standing`: a provisioned right operand; `width`: bits that its words need."""

    parts: tuple[Part, ...]
    axis: int = -1
    standing: bool = False
    width: int = WORD_BITS

    @property
    def shape(self) -> tuple[int, ...]:
        shapes = [p.shape[::-1] if p.transpose else p.shape for p in self.parts]
        joined = list(shapes[0])
        joined[self.axis] = sum(s[self.axis] for s in shapes)
        return tuple(joined)

    def build(self, checkpoint: Checkpoint) -> np.ndarray:
        """The tensor in float64. Raises ModelError as `Checkpoint.read`."""
        arrays = [checkpoint.read(p.name(checkpoint), p.shape) for p in self.parts]
        arrays = [(a.T if p.transpose else a) * p.factor if p.transpose or p.factor != 1.0 else a
                  for a, p in zip(arrays, self.parts, strict=True)]
        return np.ascontiguousarray(arrays[0] if len(arrays) == 1 else np.concatenate(arrays, self.axis))


Layout = Mapping[str, Tensor]


def encoder_layout(spec: BertSpec) -> dict[str, Tensor]:
    """Everything behind the embedding sum: layers, pooler and head."""
    c, layout = spec.hidden, dict(_norm("embedding.layernorm", "embeddings.LayerNorm", spec.hidden))
    for i in range(spec.layers):
        there, here = f"encoder.layer.{i}", f"layer.{i}"
        query = 1.0 / math.sqrt(spec.head_dim)
        rows = [(f"{there}.attention.self.{n}", f) for n, f in (("query", query), ("key", 1.0), ("value", 1.0))]
        layout[f"{here}.qkv.weight"] = Tensor(
            tuple(Part((f"{n}.weight",), (c, c), True, f) for n, f in rows), standing=True)
        layout[f"{here}.qkv.bias"] = Tensor(tuple(Part((f"{n}.bias",), (c,), False, f) for n, f in rows))
        layout |= _linear(f"{here}.attention", f"{there}.attention.output.dense", c, c)
        layout |= _norm(f"{here}.attention.layernorm", f"{there}.attention.output.LayerNorm", c)
        layout |= _linear(f"{here}.intermediate", f"{there}.intermediate.dense", c, spec.intermediate)
        layout |= _linear(f"{here}.output", f"{there}.output.dense", spec.intermediate, c)
        layout |= _norm(f"{here}.output.layernorm", f"{there}.output.LayerNorm", c)
    if spec.pooler:
        layout |= _linear("pooler", "pooler.dense", c, c)
    return layout | _head(spec)


def embedding_layout(spec: BertSpec, width: int = WORD_BITS) -> dict[str, Tensor]:
    """The tables of a private embedding; `width` from `table_width`."""
    c = spec.hidden
    return {
        TABLE: Tensor((Part((WORDS,), (spec.vocab, c)), Part((SEGMENTS,), (spec.types, c))), 0, True, width),
        "embedding.positions": Tensor((Part((POSITIONS,), (spec.positions, c)),)),
    }


def table_width(spec: BertSpec, checkpoint: Checkpoint, frac: int, bound: float) -> int:
    """The narrowest width at which a word's row plus a segment's row fits with a lift's headroom of two bits."""
    c = spec.hidden
    reach = checkpoint.reach(WORDS, (spec.vocab, c), bound) + checkpoint.reach(SEGMENTS, (spec.types, c), bound)
    if not reach < bound:
        raise RangeError(f"word plus segment embeddings reach {reach:g}; fixed point takes |v| < {bound:g}")
    return next((w for w in NARROW if reach + 2.0**-frac < 2.0 ** (w - 2 - frac)), WORD_BITS)


def parts(layout: Layout) -> Iterator[Part]:
    for tensor in layout.values():
        yield from tensor.parts


def _linear(here: str, there: str, inner: int, outer: int) -> dict[str, Tensor]:
    return {
        f"{here}.weight": Tensor((Part((f"{there}.weight",), (outer, inner), True),), standing=True),
        f"{here}.bias": Tensor((Part((f"{there}.bias",), (outer,)),)),
    }


def _norm(here: str, there: str, c: int) -> dict[str, Tensor]:
    return {f"{here}.{k}": Tensor((Part((f"{there}.{k}",), (c,)),)) for k in ("weight", "bias")}


def _head(spec: BertSpec) -> dict[str, Tensor]:
    c = spec.hidden
    if spec.architecture in (SEQUENCE, TOKEN):
        return _linear("head", "classifier", c, len(spec.labels))
    if spec.architecture == QUESTION:
        return _linear("head", "qa_outputs", c, 2)
    if spec.architecture == MASKED:
        there = "cls.predictions"
        decoder = (f"{there}.decoder.weight", *((WORDS,) if spec.tied else ()))
        return {
            **_linear("head.transform", f"{there}.transform.dense", c, c),
            **_norm("head.layernorm", f"{there}.transform.LayerNorm", c),
            "head.weight": Tensor((Part(decoder, (spec.vocab, c), True),), standing=True),
            "head.bias": Tensor((Part((f"{there}.bias", f"{there}.decoder.bias"), (spec.vocab,)),)),
        }
    if spec.architecture == ENCODER:
        return {}
    raise ValueError(spec.architecture)
