"""The BERT encoder (Devlin et al., NAACL 2019), written once for every session.

B texts, T tokens of the longest, N tokens of all texts packed without padding, C hidden, H heads, D = C / H.
Token-wise work is on (N, C), attention on (B, H, T, D). `at(site)` gives the measured ranges of a call site.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from secformer.models.config import BertSpec
from secformer.models.tokens import Batch
from secformer.mpc.session import Session
from secformer.mpc.shares import Share, Weight
from secformer.protocols.ranges import Site
from secformer.protocols.recipes import Recipe

Sites = Callable[[str], Site]


@dataclass(frozen=True)
class Parameters:
    """A session's view of a model's tensors; `inside` narrows it to a layer."""

    matrices: dict[str, Weight] = field(default_factory=dict)
    vectors: dict[str, Share] = field(default_factory=dict)
    prefix: str = ""

    def matrix(self, name: str) -> Weight:
        return self.matrices[self.prefix + name]

    def vector(self, name: str) -> Share:
        return self.vectors[self.prefix + name]

    def inside(self, name: str) -> Parameters:
        return replace(self, prefix=f"{self.prefix}{name}.")


@dataclass(frozen=True)
class Bert:
    """What a forward pass needs beside its input. All of it but the parameters' values is public."""

    spec: BertSpec
    parameters: Parameters
    recipe: Recipe
    at: Sites


def linear(s: Session, x: Share, p: Parameters, name: str) -> Share:
    """x (N, K) @ W (K, M) + b."""
    return s.matmul(x, p.matrix(f"{name}.weight")) + p.vector(f"{name}.bias")


def layernorm(s: Session, x: Share, bert: Bert, site: str) -> Share:
    p = bert.parameters.inside(site)
    with s.scope("layernorm"):
        return bert.recipe.layernorm(s, x, p.vector("weight"), p.vector("bias"), bert.spec.eps, bert.at(site))


def private_embedding(s: Session, rows: Share, batch: Batch, bert: Bert) -> Share:
    """Secret one-hot rows (N, V + S) times the secret table of words and segments, plus positions, which are public:
    the sum (N, C) that LayerNorm takes. Looked up at the table's narrow width, then lifted once."""
    p = bert.parameters.inside("embedding")
    (found,) = s.lift(s.matmul(rows, p.matrix("table")))
    return found + p.vector("positions")[batch.positions]


def encode(s: Session, x: Share, batch: Batch, bert: Bert) -> Share:
    """Embedding sums (N, C) to the last hidden state (N, C)."""
    with s.scope("embedding"):
        x = layernorm(s, x, bert, "embedding.layernorm")
    for i in range(bert.spec.layers):
        with s.scope(f"layer.{i}"):
            x = attention(s, x, batch, bert, f"layer.{i}")
            x = feed_forward(s, x, bert, f"layer.{i}")
    return x


def attention(s: Session, x: Share, batch: Batch, bert: Bert, layer: str) -> Share:
    """LayerNorm(x + W softmax(Q K^T) V); 1/sqrt(D) is part of Q's weights."""
    p, c = bert.parameters.inside(layer), bert.spec.hidden
    with s.scope("linear"):
        (qkv,) = s.settle(linear(s, x, p, "qkv"))  # (N, 3C): one truncation for its three uses
        q, k, v = (_heads(qkv[:, i * c : (i + 1) * c], batch, bert.spec) for i in range(3))
        scores = s.matmul(q, k.swapaxes(-1, -2))  # (B, H, T, T)
    with s.scope("softmax"):
        context = bert.recipe.softmax(s, scores, v, batch.mask, bert.at(f"{layer}.softmax"))
    with s.scope("linear"):
        x = x + linear(s, _tokens(context, batch), p, "attention")
    return layernorm(s, x, bert, f"{layer}.attention.layernorm")


def feed_forward(s: Session, x: Share, bert: Bert, layer: str) -> Share:
    """LayerNorm(x + W' GeLU(W x))."""
    p = bert.parameters.inside(layer)
    with s.scope("linear"):
        inner = linear(s, x, p, "intermediate")
    with s.scope("gelu"):
        inner = bert.recipe.gelu(s, inner, bert.at(f"{layer}.gelu"))
    with s.scope("linear"):
        x = x + linear(s, inner, p, "output")
    return layernorm(s, x, bert, f"{layer}.output.layernorm")


def pool(s: Session, x: Share, batch: Batch, bert: Bert) -> Share:
    """tanh(W x[first token of each text]): (B, C)."""
    with s.scope("pooler"):
        first = linear(s, x[batch.starts], bert.parameters, "pooler")
        return bert.recipe.tanh(s, first, bert.at("pooler.tanh"))


def _heads(x: Share, batch: Batch, spec: BertSpec) -> Share:
    """(N, C) to (B, H, T, D)."""
    if batch.padded:
        x = x[batch.unpacking]
    return x.reshape(batch.size, batch.longest, spec.heads, spec.head_dim).transpose(0, 2, 1, 3)


def _tokens(x: Share, batch: Batch) -> Share:
    """(B, H, T, D) to (N, C)."""
    b, h, t, d = x.shape
    x = x.transpose(0, 2, 1, 3).reshape(b * t, h * d)
    return x[batch.packing] if batch.padded else x
