"""BERT (Devlin et al., NAACL 2019): its config, its tensors, and the encoder, written once for every session.

B texts, T tokens of the longest, N tokens of all texts packed without padding, C hidden, I intermediate, H heads,
D = C / H, V words, S segments, P positions, L labels. Token-wise work is on (N, C), attention on (B, H, T, D).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Self

from secformer.models.data.batch import Batch
from secformer.models.data.checkpoint import Checkpoint
from secformer.models.data.inputs import TokenInputs
from secformer.models.data.tensors import TABLE, Part, Tensor, linear_layout, matrix, norm_layout
from secformer.models.families.activations import GELU, NAMES, activation
from secformer.models.families.architecture import LAYERS, Architecture, Rows, Spec, later
from secformer.models.families.blocks import Forward, join_heads, layernorm, linear, look_up, reaching, split_heads
from secformer.models.families.config import Config
from secformer.models.families.heads import Head, word_logits
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.quantities import SCORE

WORDS = "embeddings.word_embeddings.weight"
SEGMENTS = "embeddings.token_type_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
PREDICTIONS = "cls.predictions"
RELATIONSHIP = "cls.seq_relationship"
CONTINUES = ("continuation", "random")  # what the two logits of RELATIONSHIP say of a pair's second text


@dataclass(frozen=True, kw_only=True)
class BertSpec(Spec):
    """The public facts of a BERT checkpoint.

    vocab, types, positions  V, S, P: rows of the word, segment and position tables
    hidden, layers, heads, intermediate  C, number of layers, H, I
    eps      LayerNorm's epsilon
    tied     the masked-language head reads the word table
    pooler   the checkpoint has a pooler and its class uses it
    pad      id of the padding token
    act      the feed-forward layers' activation, a value of `activations.NAMES`
    """

    vocab: int
    types: int
    positions: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    eps: float
    tied: bool = True
    pooler: bool = True
    pad: int = 0
    act: str = later(GELU)


class Bert(Architecture):
    """A BERT encoder, with the heads that Hugging Face has for it."""

    model_type = "bert"
    classes: ClassVar[Mapping[str, Head]] = MappingProxyType({
        "BertModel": Head.ENCODER, "BertForSequenceClassification": Head.SEQUENCE,
        "BertForTokenClassification": Head.TOKEN, "BertForQuestionAnswering": Head.QUESTION,
        "BertForMaskedLM": Head.MASKED, "BertForNextSentencePrediction": Head.NEXT,
        "BertForPreTraining": Head.PRETRAINING,
    })
    spec_type = BertSpec
    prefix = "bert."
    buffers = ("embeddings.position_ids",)  # stored by old versions

    spec: BertSpec

    # ---- from a config -----------------------------------------------------------------------------------------------

    @classmethod
    def from_config(cls, config: Config, architecture: str) -> Self:
        config, head = config.filled(), cls.classes[architecture]
        act = config.named("hidden_act", NAMES)
        kind = config.get("position_embedding_type") or "absolute"
        config.require("position_embedding_type", kind == "absolute", "'absolute'")
        decoder = bool(config.get("is_decoder") or config.get("add_cross_attention"))
        config.require("is_decoder or add_cross_attention", not decoder, "false (an encoder)", True)
        hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
        config.require("hidden_size", hidden % heads == 0, f"a multiple of num_attention_heads = {heads}")
        labels = config.labels() if head in (Head.SEQUENCE, Head.TOKEN) else CONTINUES if head is Head.NEXT else ()
        recipe, constants = config.student()
        return cls(BertSpec(
            architecture=architecture,
            labels=labels,
            problem=config.problem(head, len(labels)),
            recipe=recipe,
            constants=constants,
            score=config.score(head, len(labels)),
            vocab=config.size("vocab_size"),
            types=config.size("type_vocab_size"),
            positions=config.size("max_position_embeddings"),
            hidden=hidden,
            layers=config.size("num_hidden_layers"),
            heads=heads,
            intermediate=config.size("intermediate_size"),
            eps=float(config.get("layer_norm_eps")),
            tied=bool(config.get("tie_word_embeddings", True)),
            pooler=head.pooled,
            pad=config.get("pad_token_id") or 0,
            act=act,
        ))

    def found_in(self, checkpoint: Checkpoint) -> tuple[Self, list[str]]:
        if self.head is Head.ENCODER and "pooler.dense.weight" not in checkpoint:
            return replace(self, spec=replace(self.spec, pooler=False)), [
                "the checkpoint has no pooler, so there is no pooler_output"]
        return self, []

    # ---- tensors: Q, K and V are one matrix (C, 3C); words and segments are one table (V + S, C) ---------------------

    def tables(self) -> dict[str, Tensor]:
        spec, c = self.spec, self.spec.hidden
        return {
            TABLE: Tensor((Part((WORDS,), (spec.vocab, c)), Part((SEGMENTS,), (spec.types, c))), 0, True),
            "embedding.positions": Tensor((Part((POSITIONS,), (spec.positions, c)),)),
        }

    def weights(self) -> dict[str, Tensor]:
        spec, c = self.spec, self.spec.hidden
        layout = norm_layout("embedding.layernorm", "embeddings.LayerNorm", c)
        for i in range(spec.layers):
            there, here = f"encoder.layer.{i}", f"layer.{i}"
            scale = 1.0 / math.sqrt(c // spec.heads)  # 1/sqrt(D) is part of Q's weights
            rows = [(f"{there}.attention.self.{n}", f) for n, f in (("query", scale), ("key", 1.0), ("value", 1.0))]
            layout[f"{here}.qkv.weight"] = Tensor(
                tuple(Part((f"{n}.weight",), (c, c), True, f) for n, f in rows), standing=True)
            layout[f"{here}.qkv.bias"] = Tensor(tuple(Part((f"{n}.bias",), (c,), False, f) for n, f in rows))
            layout |= linear_layout(f"{here}.attention", f"{there}.attention.output.dense", c, c)
            layout |= norm_layout(f"{here}.attention.layernorm", f"{there}.attention.output.LayerNorm", c)
            layout |= linear_layout(f"{here}.intermediate", f"{there}.intermediate.dense", c, spec.intermediate)
            layout |= linear_layout(f"{here}.output", f"{there}.output.dense", spec.intermediate, c)
            layout |= norm_layout(f"{here}.output.layernorm", f"{there}.output.LayerNorm", c)
        if spec.pooler:
            layout |= linear_layout("pooler", "pooler.dense", c, c)
        return layout | self._head()

    def _head(self) -> dict[str, Tensor]:
        spec, c = self.spec, self.spec.hidden
        if self.head in (Head.SEQUENCE, Head.TOKEN):
            return linear_layout("head", "classifier", c, len(spec.labels))
        if self.head is Head.QUESTION:
            return linear_layout("head", "qa_outputs", c, 2)
        if self.head is Head.NEXT:
            return linear_layout("head", RELATIONSHIP, c, len(CONTINUES))
        if self.head in (Head.MASKED, Head.PRETRAINING):
            decoder = (f"{PREDICTIONS}.decoder.weight", *((WORDS,) if spec.tied else ()))
            bias = (f"{PREDICTIONS}.bias", f"{PREDICTIONS}.decoder.bias")
            pair = self.head is Head.PRETRAINING
            return {
                **linear_layout("head.transform", f"{PREDICTIONS}.transform.dense", c, c),
                **norm_layout("head.layernorm", f"{PREDICTIONS}.transform.LayerNorm", c),
                "head.weight": replace(matrix(WORDS, c, spec.vocab), parts=(Part(decoder, (spec.vocab, c), True),)),
                "head.bias": Tensor((Part(bias, (spec.vocab,)),)),
                **(linear_layout("head.relationship", RELATIONSHIP, c, len(CONTINUES)) if pair else {}),
            }
        return {}

    # ---- inputs ------------------------------------------------------------------------------------------------------

    @cached_property
    def inputs(self) -> TokenInputs:
        return TokenInputs(self.spec.vocab, self.spec.types, self.spec.positions, self.spec.hidden)

    def embedding_sums(self, rows: Rows, batch: Batch) -> Any:
        spec, c = self.spec, self.spec.hidden
        words = rows(WORDS, (spec.vocab, c), batch.ids)
        segments = rows(SEGMENTS, (spec.types, c), batch.segments)
        return words + segments + rows(POSITIONS, (spec.positions, c), batch.positions)

    # ---- the program -------------------------------------------------------------------------------------------------

    def embed(self, s: Session, rows: Share, f: Forward) -> Share:
        """Words and segments are secret, positions are public."""
        return look_up(s, rows, f) + f.parameters.vector("embedding.positions")[f.batch.positions]

    def answer(self, s: Session, x: Share, f: Forward) -> dict[str, Share]:
        x = self.encode(s, x, f)
        out = {"last_hidden_state": x}
        if self.spec.pooler:
            out["pooler_output"] = self.pool(s, x, f)
        with s.scope("head"):
            if self.head in (Head.SEQUENCE, Head.NEXT):
                out["logits"] = linear(s, out["pooler_output"], f, "head")  # (B, L)
            elif self.head is Head.MASKED:
                out["logits"] = word_logits(s, x, f, self.spec.eps, self.spec.act)
            elif self.head is Head.PRETRAINING:
                out["prediction_logits"] = word_logits(s, x, f, self.spec.eps, self.spec.act)
                out["seq_relationship_logits"] = linear(s, out["pooler_output"], f, "head.relationship")
            elif self.head is not Head.ENCODER:
                out["logits"] = linear(s, x, f, "head")  # (N, L); start and end of an answer are two outputs
        return out

    def encode(self, s: Session, x: Share, f: Forward) -> Share:
        """Embedding sums (N, C) to the last hidden state (N, C)."""
        with s.scope("embedding"):
            x = layernorm(s, x, f, "embedding.layernorm", self.spec.eps)
        for i in range(self.spec.layers):
            with s.scope(f"layer.{i}"):
                x = self.attention(s, x, f, f"layer.{i}")
                x = self.feed_forward(s, x, f, f"layer.{i}")
        return x

    def attention(self, s: Session, x: Share, f: Forward, layer: str) -> Share:
        """LayerNorm(x + W softmax(Q K^T) V)."""
        c, heads, at = self.spec.hidden, self.spec.heads, f.at(f"{layer}.softmax")
        with s.scope("linear"):
            (qkv,) = s.settle(linear(s, x, f, f"{layer}.qkv"))  # (N, 3C): one truncation for its three uses
            q, k, v = (split_heads(qkv[:, i * c : (i + 1) * c], f.batch, heads) for i in range(3))
            scores = s.matmul(q, k.swapaxes(-1, -2), magnitude=reaching(s, at, SCORE))  # (B, H, T, T)
        with s.scope("softmax"):
            context = f.recipe.softmax(s, scores, v, f.batch.mask, at)
        with s.scope("linear"):
            x = x + linear(s, join_heads(context, f.batch), f, f"{layer}.attention")
        return layernorm(s, x, f, f"{layer}.attention.layernorm", self.spec.eps)

    def feed_forward(self, s: Session, x: Share, f: Forward, layer: str) -> Share:
        """LayerNorm(x + W' act(W x)), act being GeLU or what the config names."""
        with s.scope("linear"):
            inner = linear(s, x, f, f"{layer}.intermediate")
        inner = activation(s, inner, f, layer, self.spec.act)
        with s.scope("linear"):
            x = x + linear(s, inner, f, f"{layer}.output")
        return layernorm(s, x, f, f"{layer}.output.layernorm", self.spec.eps)

    def pool(self, s: Session, x: Share, f: Forward) -> Share:
        """tanh(W x[first token of each text]): (B, C)."""
        with s.scope("pooler"):
            return f.recipe.tanh(s, linear(s, x[f.batch.starts], f, "pooler"), f.at("pooler.tanh"))

    @property
    def sites(self) -> tuple[str, ...]:
        layer = ("softmax", "attention.layernorm", self.spec.act, "output.layernorm")
        words = self.head in (Head.MASKED, Head.PRETRAINING)
        head = (f"head.{self.spec.act}", "head.layernorm") if words else ()
        return ("embedding.layernorm", *(f"layer.{i}.{name}" for i in range(self.spec.layers) for name in layer),
                *(("pooler.tanh",) if self.spec.pooler else ()), *head)

    @property
    def results(self) -> Mapping[str, bool]:
        pooled = {"pooler_output": False} if self.spec.pooler else {}
        logits = {} if self.head is Head.ENCODER else {"logits": self.head.by_token}
        if self.head is Head.PRETRAINING:
            logits = {"prediction_logits": True, "seq_relationship_logits": False}
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
        return replace(self, spec=replace(self.spec, architecture="BertForSequenceClassification", labels=labels,
                                          problem=problem, pooler=True, recipe=None))
