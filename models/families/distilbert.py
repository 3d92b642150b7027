"""DistilBERT (Sanh et al., 2019): BERT without segments and pooler, and with half of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from secformer.models.families.config import Config
from secformer.models.families.encoder import Encoder
from secformer.models.families.encoder_facts import Names, classes
from secformer.models.families.heads import TextHead, WordHead
from secformer.protocols.activations import RELU

EPS = 1e-12  # of every LayerNorm; the config has no entry for it


class DistilBert(Encoder):
    """A DistilBERT encoder, with the heads that Hugging Face has for it."""

    model_type = "distilbert"
    classes = classes("DistilBert")
    prefix = "distilbert."
    names = Names(
        layer="transformer.layer.{}", query="attention.q_lin", key="attention.k_lin", value="attention.v_lin",
        attention="attention.out_lin", attention_norm="sa_layer_norm", intermediate="ffn.lin1", output="ffn.lin2",
        output_norm="output_layer_norm", pooler=None)
    keys: ClassVar[Mapping[str, str]] = MappingProxyType({
        "hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers",
        "intermediate_size": "hidden_dim", "hidden_act": "activation"})
    text_head = TextHead("classifier", "pre_classifier", RELU.name)
    word_head = WordHead("vocab_transform", "vocab_layer_norm", "vocab_projector")

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        return super().facts_of(config, architecture) | {"types": 0, "eps": EPS}
