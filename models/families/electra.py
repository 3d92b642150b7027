"""ELECTRA (Clark et al., ICLR 2020): BERT with embeddings of their own size, without a pooler."""

from __future__ import annotations

from typing import Any

from secformer.models.families.activations import GELU
from secformer.models.families.config import Config
from secformer.models.families.encoder_facts import Names, classes, require_absolute
from secformer.models.families.factorised import Factorised
from secformer.models.families.heads import TextHead, WordHead


class Electra(Factorised):
    """An ELECTRA encoder, with the heads that Hugging Face has for discriminators and generators."""

    model_type = "electra"
    classes = classes("Electra")
    prefix = "electra."
    names = Names(pooler=None)
    projection, always = "embeddings_project", False
    text_head = TextHead("classifier.out_proj", "classifier.dense", GELU)
    word_head = WordHead("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head")

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        require_absolute(config)
        return super().facts_of(config, architecture)

    @property
    def word_act(self) -> str:
        return GELU  # whatever the config names for the layers
