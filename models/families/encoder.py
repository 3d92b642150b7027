"""What BERT and its relatives have in common: embedding sums, layers with LayerNorm behind each half, and heads.

A family says where its checkpoints keep each tensor (`Names`, `TextHead`, `WordHead`), and overrides what differs.

B texts, T tokens of the longest, N tokens of all texts packed without padding, C hidden, I intermediate, H heads,
D = C / H, V words, S segments, P positions, L labels. Token-wise work is on (N, C), attention on (B, H, T, D).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np

from secformer.models.data.batch import Batch
from secformer.models.data.checkpoint import Checkpoint
from secformer.models.data.inputs import TokenInputs
from secformer.models.data.tensors import TABLE, Part, Tensor, linear_layout, matrix, norm_layout
from secformer.models.families.activations import NAMES, TANH, activation
from secformer.models.families.architecture import LAYERS, Architecture, Rows
from secformer.models.families.blocks import Forward, join_heads, layernorm, linear, look_up, reaching, split_heads
from secformer.models.families.config import Config
from secformer.models.families.encoder_facts import EncoderSpec, Names
from secformer.models.families.heads import Head, TextHead, WordHead
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.quantities import SCORE
from secformer.protocols.ranges import Site


class Encoder(Architecture):
    """An encoder whose layers are LayerNorm(x + attention(x)), then LayerNorm(x + feed_forward(x)).

    names        where the checkpoint keeps its tensors
    keys         the config's entries that have other names than BERT's, by BERT's
    pooled       the heads whose classes have the pooler
    text_head, word_head, token_head, question_head  where the heads' layers are, and what they are
    """

    spec_type: ClassVar[type[EncoderSpec]] = EncoderSpec
    buffers = ("embeddings.position_ids",)  # stored by old versions
    names: ClassVar[Names] = Names()
    keys: ClassVar[Mapping[str, str]] = MappingProxyType({})
    pooled: ClassVar[Collection[Head]] = ()
    text_head: ClassVar[TextHead]
    word_head: ClassVar[WordHead]
    token_head: ClassVar[str] = "classifier"
    question_head: ClassVar[str] = "qa_outputs"

    spec: EncoderSpec

    # ---- from a config -----------------------------------------------------------------------------------------------

    @classmethod
    def from_config(cls, config: Config, architecture: str) -> Self:
        config = config.filled()
        return cls(cls.spec_type(**cls.facts_of(config, architecture)))

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        """The fields of the spec, from a filled config whose entries have BERT's names, or those of `keys`. Families
        change or add some.

        Raises ModelError, which names the key, for a variant that is not run.
        """
        head = cls.classes[architecture]
        decoder = bool(config.get("is_decoder") or config.get("add_cross_attention"))
        config.require("is_decoder or add_cross_attention", not decoder, "false (an encoder)", True)
        hidden, heads = config.size(cls.key("hidden_size")), config.size(cls.key("num_attention_heads"))
        config.require(cls.key("hidden_size"), hidden % heads == 0,
                       f"a multiple of {cls.key('num_attention_heads')} = {heads}")
        labels = config.labels() if head in (Head.SEQUENCE, Head.TOKEN) else ()
        recipe, constants = config.student()
        return {
            "architecture": architecture, "labels": labels, "problem": config.problem(head, len(labels)),
            "recipe": recipe, "constants": constants, "score": config.score(head, len(labels)),
            "vocab": config.size("vocab_size"), "types": config.get("type_vocab_size") or 0,
            "positions": config.size("max_position_embeddings"), "hidden": hidden,
            "layers": config.size(cls.key("num_hidden_layers")), "heads": heads,
            "intermediate": config.size(cls.key("intermediate_size")),
            "eps": float(config.get("layer_norm_eps", 1e-12)), "tied": bool(config.get("tie_word_embeddings", True)),
            "pooler": head in cls.pooled, "pad": config.get("pad_token_id") or 0,
            "act": config.named(cls.act_key(), NAMES),
        }

    @classmethod
    def act_key(cls) -> str:
        """The config's key of the feed-forward layers' activation."""
        return cls.key("hidden_act")

    @classmethod
    def key(cls, name: str) -> str:
        """The config's name of the entry that BERT's config calls `name`."""
        return cls.keys.get(name, name)

    def found_in(self, checkpoint: Checkpoint) -> tuple[Self, list[str]]:
        if self.head is Head.ENCODER and self.spec.pooler and f"{self.names.pooler}.weight" not in checkpoint:
            return replace(self, spec=replace(self.spec, pooler=False)), [
                "the checkpoint has no pooler, so there is no pooler_output"]
        return self, []

    # ---- tensors: Q, K and V are one matrix (C, 3C); words and segments are one table (V + S, C) ---------------------

    @property
    def embedded(self) -> int:
        """Entries of a row of the embedding tables: C, but for families that project embedding sums to C."""
        return self.spec.hidden

    def tables(self) -> dict[str, Tensor]:
        spec, c = self.spec, self.embedded
        secret = [(self.names.words, spec.vocab), *([(self.names.segments, spec.types)] if spec.types else [])]
        found = {TABLE: Tensor(tuple(Part((name,), (rows, c)) for name, rows in secret), 0, True)}
        if spec.positions:
            found["embedding.positions"] = Tensor((Part((self.names.positions,), (spec.positions, c)),))
        return found

    def weights(self) -> dict[str, Tensor]:
        layout = self.embedding_layout()
        for i in dict.fromkeys(map(self.stored, range(self.spec.layers))):
            layout |= self.layer_layout(f"layer.{i}", self.place(i))
        if self.spec.pooler:
            layout |= linear_layout("pooler", str(self.names.pooler), self.spec.hidden, self.spec.hidden)
        return layout | self.head_layout()

    def stored(self, i: int) -> int:
        """The number of the stored layer that runs as layer i."""
        return i

    def place(self, i: int) -> str:
        """Where the checkpoint keeps the tensors of the stored layer i."""
        return self.names.layer.format(i)

    def embedding_layout(self) -> dict[str, Tensor]:
        """Tensors between the embedding sums and the first layer."""
        return norm_layout("embedding.layernorm", self.names.norm, self.embedded)

    def layer_layout(self, here: str, there: str) -> dict[str, Tensor]:
        """Tensors of the layer that the checkpoint keeps under `there`. The scale of scores is part of Q's weights."""
        spec, names, c = self.spec, self.names, self.spec.hidden
        rows = [(f"{there}.{n}", f) for n, f in ((names.query, self.scale), (names.key, 1.0), (names.value, 1.0))]
        return {
            f"{here}.qkv.weight": Tensor(tuple(Part((f"{n}.weight",), (c, c), True, f) for n, f in rows),
                                         standing=True),
            f"{here}.qkv.bias": Tensor(tuple(Part((f"{n}.bias",), (c,), False, f) for n, f in rows)),
            **linear_layout(f"{here}.attention", f"{there}.{names.attention}", c, c),
            **norm_layout(f"{here}.attention.layernorm", f"{there}.{names.attention_norm}", c),
            **linear_layout(f"{here}.intermediate", f"{there}.{names.intermediate}", c, spec.intermediate),
            **linear_layout(f"{here}.output", f"{there}.{names.output}", spec.intermediate, c),
            **norm_layout(f"{here}.output.layernorm", f"{there}.{names.output_norm}", c),
        }

    @property
    def scale(self) -> float:
        """What attention's scores are multiplied with."""
        return 1.0 / math.sqrt(self.spec.hidden // self.spec.heads)

    def head_layout(self) -> dict[str, Tensor]:
        """The head's tensors."""
        spec, c = self.spec, self.spec.hidden
        if self.head is Head.SEQUENCE:
            return self.text_head.layout(c, len(spec.labels))
        if self.head is Head.TOKEN:
            return linear_layout("head", self.token_head, c, len(spec.labels))
        if self.head is Head.QUESTION:
            return linear_layout("head", self.question_head, c, 2)
        if self.head is Head.MASKED:
            return self.word_layout()
        return {}

    def word_layout(self) -> dict[str, Tensor]:
        """The tensors of the head that finds words: its decoder may be the word table."""
        spec, c, e, there = self.spec, self.spec.hidden, self.embedded, self.word_head
        decoder = (f"{there.decoder}.weight", *((self.names.words,) if spec.tied else ()))
        return {
            **linear_layout("head.transform", there.dense, c, e), **norm_layout("head.layernorm", there.norm, e),
            "head.weight": replace(matrix(self.names.words, e, spec.vocab),
                                   parts=(Part(decoder, (spec.vocab, e), True),)),
            "head.bias": Tensor((Part(there.biases, (spec.vocab,)),)),
        }

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
            (qkv,) = s.settle(linear(s, x, f, f"{weights}.qkv"))  # (N, 3C): one truncation for its three uses
            q, k, v = (split_heads(qkv[:, i * c : (i + 1) * c], f.batch, heads) for i in range(3))
            scores = self.scores(s, q, k, f, at, weights)  # (B, H, T, T)
        with s.scope("softmax"):
            context = self.context(s, scores, v, f, at)
        with s.scope("linear"):
            x = x + linear(s, join_heads(context, f.batch), f, f"{weights}.attention")
        return layernorm(s, x, f, f"{site}.attention.layernorm", self.spec.eps, f"{weights}.attention.layernorm")

    def scores(self, s: Session, q: Share, k: Share, f: Forward, at: Site, weights: str) -> Share:
        """Q K^T of queries and keys (B, H, T, D); families with relative positions add to it."""
        return s.matmul(q, k.swapaxes(-1, -2), magnitude=reaching(s, at, SCORE))

    def context(self, s: Session, scores: Share, v: Share, f: Forward, at: Site) -> Share:
        """softmax(scores) V over attended tokens, (B, H, T, D)."""
        return f.recipe.softmax(s, scores, v, f.batch.mask, at)

    def feed_forward(self, s: Session, x: Share, f: Forward, site: str, weights: str) -> Share:
        """LayerNorm(x + W' act(W x)), act being GeLU or what the config names."""
        with s.scope("linear"):
            inner = linear(s, x, f, f"{weights}.intermediate")
        inner = activation(s, inner, f, site, self.spec.act)
        with s.scope("linear"):
            x = x + linear(s, inner, f, f"{weights}.output")
        return layernorm(s, x, f, f"{site}.output.layernorm", self.spec.eps, f"{weights}.output.layernorm")

    def pool(self, s: Session, x: Share, f: Forward) -> Share:
        """tanh(W x[first token of each text]): (B, C)."""
        with s.scope("pooler"):
            return f.recipe.tanh(s, linear(s, x[f.batch.starts], f, "pooler"), f.at("pooler.tanh"))

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
        x = activation(s, linear(s, x, f, "head.transform"), f, "head", self.word_act)
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
