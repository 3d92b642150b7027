"""ALBERT (Lan et al., ICLR 2020): a few layers, each run several times, behind embeddings of their own size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from secformer.models.families.config import Config
from secformer.models.families.encoder_facts import Names, classes, require_absolute
from secformer.models.families.factorised import Factorised, FactorisedSpec
from secformer.models.families.heads import Head, TextHead, WordHead


@dataclass(frozen=True, kw_only=True)
class AlbertSpec(FactorisedSpec):
    """The public facts of an ALBERT. `layers` counts every run of a layer.

    groups  how many groups of layers the checkpoint has; each is run equally often, one after the other
    inner   layers of a group
    """

    groups: int
    inner: int


class Albert(Factorised):
    """An ALBERT encoder, with the heads that Hugging Face has for it. Every stored layer is provisioned once."""

    model_type = "albert"
    classes = classes("Albert")
    spec_type: ClassVar[type[AlbertSpec]] = AlbertSpec
    prefix = "albert."
    names = Names(
        layer="encoder.albert_layer_groups.{}.albert_layers.{}", query="attention.query", key="attention.key",
        value="attention.value", attention="attention.dense", attention_norm="attention.LayerNorm", intermediate="ffn",
        output="ffn_output", output_norm="full_layer_layer_norm", pooler="pooler")
    projection, always = "encoder.embedding_hidden_mapping_in", True
    pooled = (Head.ENCODER, Head.SEQUENCE)
    text_head = TextHead("classifier")
    word_head = WordHead("predictions.dense", "predictions.LayerNorm", "predictions.decoder", "predictions.bias")

    spec: AlbertSpec

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        require_absolute(config)
        found, inner = super().facts_of(config, architecture), config.size("inner_group_num")
        groups = config.size("num_hidden_groups")
        config.require("num_hidden_groups", groups <= found["layers"], f"at most num_hidden_layers = "
                                                                       f"{found['layers']}")
        return found | {"groups": groups, "inner": inner, "layers": found["layers"] * inner}

    def stored(self, i: int) -> int:
        spec = self.spec
        turn, layer = divmod(i, spec.inner)
        # transformers' own formula, division included: groups that do not divide the layers are rounded as there
        group = int(turn / (spec.layers // spec.inner / spec.groups))
        return group * spec.inner + layer

    def place(self, i: int) -> str:
        return self.names.layer.format(*divmod(i, self.spec.inner))
