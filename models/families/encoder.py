"""What BERT and its relatives have in common: embedding sums, layers with LayerNorm behind each half, and heads.

A family says where its checkpoints keep each tensor (`Names`, `TextHead`, `WordHead`), and overrides what differs.

B texts, T tokens of the longest, N tokens of all texts packed without padding, C hidden, I intermediate, H heads,
D = C / H, V words, S segments, P positions, L labels. Token-wise work is on (N, C), attention on (B, H, T, D).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from secformer.models.data.batch import Batch
from secformer.models.data.inputs import TokenInputs
from secformer.models.families.activations import TANH, activating, activation
from secformer.models.families.architecture import LAYERS, Rows
from secformer.models.families.blocks import (
    Forward,
    added,
    attending,
    join_heads,
    layernorm,
    linear,
    look_up,
    projecting,
    split_heads,
)
from secformer.models.families.encoder_tensors import EncoderTensors
from secformer.models.families.heads import Head
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.ranges import Site


class Encoder(EncoderTensors):
    """An encoder whose layers are LayerNorm(x + attention(x)), then LayerNorm(x + feed_forward(x))."""

    # ---- inputs ------------------------------------------------------------------------------------------------------

    @property
    def hidden_size(self) -> int:
        return self.spec.hidden

    @cached_property
    def inputs(self) -> TokenInputs:
        return TokenInputs(self.spec.vocab, self.spec.types, self.spec.positions, self.embedded)

    def positions(self, batch: Batch) -> np.ndarray:
        """The row of the position table for each token, (N,). Public."""
        return batch.positions

    def embedding_sums(self, rows: Rows, batch: Batch) -> Any:
        spec, c, names = self.spec, self.embedded, self.names
        x = rows(names.words, (spec.vocab, c), batch.ids)
        if spec.types:
            x = x + rows(names.segments, (spec.types, c), batch.segments)
        return x + rows(names.positions, (spec.positions, c), self.positions(batch)) if spec.positions else x

    # ---- the program -------------------------------------------------------------------------------------------------

    def embed(self, s: Session, rows: Share, f: Forward) -> Share:
        """Words and segments are secret, positions are public."""
        x = look_up(s, rows, f)
        if not self.spec.positions:
            return x
        return x + f.parameters.vector("embedding.positions")[self.positions(f.batch)]

    def answer(self, s: Session, x: Share, f: Forward) -> dict[str, Share]:
        x = self.encode(s, x, f)
        out = {"last_hidden_state": x}
        if self.spec.pooler:
            out["pooler_output"] = self.pool(s, x, f)
        with s.scope("head"):
            return out | self.answers(s, x, f, out)

    def encode(self, s: Session, x: Share, f: Forward) -> Share:
        """Embedding sums to the last hidden state (N, C)."""
        with s.scope("embedding"):
            x = self.enter(s, x, f)
        for i in range(self.spec.layers):
            with s.scope(f"layer.{i}"):
                x = self.layer(s, x, f, f"layer.{i}", f"layer.{self.stored(i)}")
        return x

    def enter(self, s: Session, x: Share, f: Forward) -> Share:
        """Embedding sums to the first layer's input (N, C)."""
        return layernorm(s, x, f, "embedding.layernorm", self.spec.eps)

    def layer(self, s: Session, x: Share, f: Forward, site: str, weights: str) -> Share:
        """One layer: `site` names its call sites, `weights` its parameters."""
        x = self.attention(s, x, f, site, weights)
        return self.feed_forward(s, x, f, site, weights)

    def attention(self, s: Session, x: Share, f: Forward, site: str, weights: str) -> Share:
        """LayerNorm(x + W softmax(scores) V)."""
        c, heads, at = self.spec.hidden, self.spec.heads, f.at(f"{site}.softmax")
        with s.scope("linear"):
            qkv = linear(s, x, f, f"{weights}.qkv", magnitude=projecting(s, at))
            # (N, 3C): one truncation for its three uses, as wide as products of the session's magnitude
            (qkv,) = s.settle(qkv, width=s.fixed.window(2 * s.fixed.frac, s.fixed.magnitude))
            q, k, v = (split_heads(qkv[:, i * c : (i + 1) * c], f.batch, heads) for i in range(3))
            scores = self.scores(s, q, k, f, at, weights)  # (B, H, T, T)
        with s.scope("softmax"):
            context = self.context(s, scores, v, f, at)
        with s.scope("linear"):
            x = added(s, x, join_heads(context, f.batch), f, f"{weights}.attention", f"{site}.attention.layernorm")
        return layernorm(s, x, f, f"{site}.attention.layernorm", self.spec.eps, f"{weights}.attention.layernorm")

    def scores(self, s: Session, q: Share, k: Share, f: Forward, at: Site, weights: str) -> Share:
        """Q K^T of queries and keys (B, H, T, D); families with relative positions add to it."""
        return s.matmul(q, k.swapaxes(-1, -2), magnitude=attending(s, f, at))

    def context(self, s: Session, scores: Share, v: Share, f: Forward, at: Site) -> Share:
        """softmax(scores) V over attended tokens, (B, H, T, D)."""
        return f.recipe.softmax(s, scores, v, f.batch.mask, at)

    def feed_forward(self, s: Session, x: Share, f: Forward, site: str, weights: str) -> Share:
        """LayerNorm(x + W' act(W x)), act being GeLU or what the config names."""
        with s.scope("linear"):
            inner = linear(s, x, f, f"{weights}.intermediate", magnitude=activating(s, f, site, self.spec.act))
        inner = activation(s, inner, f, site, self.spec.act)
        with s.scope("linear"):
            x = added(s, x, inner, f, f"{weights}.output", f"{site}.output.layernorm")
        return layernorm(s, x, f, f"{site}.output.layernorm", self.spec.eps, f"{weights}.output.layernorm")

    def pool(self, s: Session, x: Share, f: Forward) -> Share:
        """tanh(W x[first token of each text]): (B, C)."""
        with s.scope("pooler"):
            x = linear(s, x[f.batch.starts], f, "pooler", magnitude=activating(s, f, "pooler", TANH))
            return f.recipe.tanh(s, x, f.at("pooler.tanh"))

    def answers(self, s: Session, x: Share, f: Forward, out: Mapping[str, Share]) -> dict[str, Share]:
        """The head's results, from hidden states x (N, C) and what was computed before, `out`."""
        if self.head is Head.SEQUENCE:  # (B, L)
            first = out["pooler_output"] if "pooler_output" in out else x[f.batch.starts]
            return {"logits": self.text_head.logits(s, first, f)}
        if self.head is Head.MASKED:
            return {"logits": self.word_logits(s, x, f)}
        if self.head in (Head.TOKEN, Head.QUESTION):  # (N, L); start and end of an answer are two outputs
            return {"logits": linear(s, x, f, "head")}
        return {}

    def word_logits(self, s: Session, x: Share, f: Forward) -> Share:
        """Logits (N, V) of hidden states (N, C): dense, the activation, LayerNorm, decoder."""
        x = linear(s, x, f, "head.transform", magnitude=activating(s, f, "head", self.word_act))
        x = activation(s, x, f, "head", self.word_act)
        return linear(s, layernorm(s, x, f, "head.layernorm", self.spec.eps), f, "head")

    @property
    def word_act(self) -> str:
        """The activation of the head that finds words."""
        return self.spec.act

    @property
    def sites(self) -> tuple[str, ...]:
        return (*self.embedding_sites, *(f"layer.{i}.{name}" for i in range(self.spec.layers)
                                         for name in self.layer_sites),
                *((f"pooler.{TANH}",) if self.spec.pooler else ()), *self.head_sites)

    @property
    def embedding_sites(self) -> tuple[str, ...]:
        """The sites of `enter`."""
        return ("embedding.layernorm",)

    @property
    def layer_sites(self) -> tuple[str, ...]:
        """The sites of a layer, without its name."""
        return ("softmax", "attention.layernorm", self.spec.act, "output.layernorm")

    @property
    def head_sites(self) -> tuple[str, ...]:
        """The sites of the head."""
        if self.head is Head.MASKED:
            return self.word_sites
        return self.text_head.sites if self.head is Head.SEQUENCE else ()

    @property
    def word_sites(self) -> tuple[str, ...]:
        """The sites of `word_logits`."""
        return (f"head.{self.word_act}", "head.layernorm")

    @property
    def fillable(self) -> bool:
        return True

    @property
    def results(self) -> Mapping[str, bool]:
        pooled = {"pooler_output": False} if self.spec.pooler else {}
        logits = {} if self.head is Head.ENCODER else {"logits": self.head.by_token}
        return {"last_hidden_state": True, **pooled, **logits}

    # ---- distillation ------------------------------------------------------------------------------------------------

    @property
    def hidden_sites(self) -> tuple[str, ...]:
        return ("embedding.layernorm", *(f"layer.{i}.output.layernorm" for i in range(self.spec.layers)))

    @property
    def sizes(self) -> Mapping[str, int]:
        spec = self.spec
        return {"vocabulary": spec.vocab, "hidden size": spec.hidden, "heads": spec.heads, LAYERS: spec.layers}

    def classifier(self, labels: tuple[str, ...]) -> Self:
        problem = "regression" if len(labels) == 1 else "single"
        (name,) = (name for name, head in self.classes.items() if head is Head.SEQUENCE)
        return replace(self, spec=replace(self.spec, architecture=name, labels=labels, problem=problem,
                                          pooler=Head.SEQUENCE in self.pooled, recipe=None))
