"""ELECTRA (Clark et al., ICLR 2020): BERT with embeddings of their own size, without a pooler."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from secformer.models.data.tensors import Tensor
from secformer.models.families.activations import GELU
from secformer.models.families.blocks import Forward
from secformer.models.families.config import Config
from secformer.models.families.encoder_facts import Names, classes, require_absolute
from secformer.models.families.factorised import Factorised
from secformer.models.families.heads import Head, TextHead, WordHead
from secformer.mpc.session import Session
from secformer.mpc.shares import Share


class Electra(Factorised):
    """An ELECTRA encoder, with the heads that Hugging Face has for discriminators and generators."""

    model_type = "electra"
    classes: ClassVar[Mapping[str, Head]] = MappingProxyType({
        **classes("Electra"), "ElectraForPreTraining": Head.REPLACED,
    })
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
    def replaced_head(self) -> TextHead:
        """The discriminator's head. It reads every token, not only the first."""
        return TextHead("discriminator_predictions.dense_prediction", "discriminator_predictions.dense", self.spec.act)

    def head_layout(self) -> dict[str, Tensor]:
        if self.head is Head.REPLACED:
            return self.replaced_head.layout(self.spec.hidden, 1)
        return super().head_layout()

    @property
    def head_sites(self) -> tuple[str, ...]:
        return self.replaced_head.sites if self.head is Head.REPLACED else super().head_sites

    def answers(self, s: Session, x: Share, f: Forward, out: Mapping[str, Share]) -> dict[str, Share]:
        if self.head is Head.REPLACED:
            return {"logits": self.replaced_head.logits(s, x, f)}
        return super().answers(s, x, f, out)

    @property
    def word_act(self) -> str:
        return GELU  # whatever the config names for the layers
