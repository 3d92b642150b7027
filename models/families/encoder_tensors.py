"""The tensors of BERT and its relatives: where checkpoints keep them, what they are called here, and what follows from
them alone.

V words, S segments, P positions, C hidden, I intermediate, H heads, D = C / H, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, Self

from secformer.models.data.checkpoint import Checkpoint
from secformer.models.data.tensors import TABLE, Part, Tensor, linear_layout, norm_layout
from secformer.models.families.activations import NAMES
from secformer.models.families.architecture import Architecture
from secformer.models.families.certain import Values, layers
from secformer.models.families.config import Config
from secformer.models.families.encoder_facts import EncoderSpec, Names
from secformer.models.families.heads import Head, TextHead, WordHead


class EncoderTensors(Architecture):
    """The tensors of an `Encoder`, found from its config.

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
        return self.word_head.layout(self.names.words if self.spec.tied else None, self.spec.hidden, self.embedded,
                                     self.spec.vocab)

    @property
    def projects(self) -> bool:
        """Whether a linear layer is between the embedding's LayerNorm and the first layer."""
        return False

    def certain(self, values: Values) -> Mapping[str, float]:
        spec, names = self.spec, [(f"layer.{i}", f"layer.{self.stored(i)}") for i in range(self.spec.layers)]
        return layers(values, names, spec.heads, spec.act, None if self.projects else "embedding.layernorm")
