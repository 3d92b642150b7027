"""RoBERTa (Liu et al., 2019), and CamemBERT and XLM-RoBERTa, which differ from it in their vocabularies alone.

N packed tokens, P positions.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from secformer.models.data.batch import Batch
from secformer.models.data.inputs import TokenInputs
from secformer.models.families.activations import GELU, TANH
from secformer.models.families.config import Config
from secformer.models.families.encoder import Encoder
from secformer.models.families.encoder_facts import classes, require_absolute
from secformer.models.families.heads import Head, TextHead, WordHead


class Roberta(Encoder):
    """A RoBERTa encoder, with the heads that Hugging Face has for it.

    A token's position counts the tokens so far that are not padding; padding has the position `pad`, the others begin
    behind it. Parties know the attention mask alone, so the mask must say which tokens are padding: `inputs` has `pad`
    for clients to check it.
    """

    model_type = "roberta"
    classes = classes("Roberta")
    prefix = "roberta."
    pooled = (Head.ENCODER,)
    text_head = TextHead("classifier.out_proj", "classifier.dense", TANH)
    word_head = WordHead("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias")

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        require_absolute(config)
        found, pad = super().facts_of(config, architecture), config.get("pad_token_id")
        most = min(found["vocab"], found["positions"] - 1)
        config.require("pad_token_id", isinstance(pad, int) and not isinstance(pad, bool) and 0 <= pad < most,
                       f"0 to {most - 1}: a row of the word table and of the position table, with positions behind it")
        return found | {"pad": pad}

    @cached_property
    def inputs(self) -> TokenInputs:
        return replace(super().inputs, longest=self.spec.positions - self.spec.pad - 1, pad=self.spec.pad)

    def positions(self, batch: Batch) -> np.ndarray:
        return batch.counted(self.spec.pad)

    @property
    def word_act(self) -> str:
        return GELU  # whatever the config names for the layers


class Camembert(Roberta):
    """A CamemBERT encoder."""

    model_type = "camembert"
    classes = classes("Camembert")


class XLMRoberta(Roberta):
    """An XLM-RoBERTa encoder."""

    model_type = "xlm-roberta"
    classes = classes("XLMRoberta")
