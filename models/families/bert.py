"""BERT (Devlin et al., NAACL 2019): words, segments and positions, and heads for pre-training beside the usual ones."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from secformer.models.data.tensors import Tensor, linear_layout
from secformer.models.families.blocks import Forward, linear
from secformer.models.families.config import Config
from secformer.models.families.encoder import Encoder
from secformer.models.families.encoder_facts import classes, require_absolute
from secformer.models.families.heads import Head, TextHead, WordHead
from secformer.mpc.session import Session
from secformer.mpc.shares import Share

RELATIONSHIP = "cls.seq_relationship"
CONTINUES = ("continuation", "random")  # what the two logits of RELATIONSHIP say of a pair's second text


class Bert(Encoder):
    """A BERT encoder, with the heads that Hugging Face has for it."""

    model_type = "bert"
    classes: ClassVar[Mapping[str, Head]] = MappingProxyType({
        **classes("Bert"), "BertForNextSentencePrediction": Head.NEXT, "BertForPreTraining": Head.PRETRAINING,
    })
    prefix = "bert."
    pooled = (Head.ENCODER, Head.SEQUENCE, Head.NEXT, Head.PRETRAINING)
    text_head = TextHead("classifier")
    word_head = WordHead("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm",
                         "cls.predictions.decoder", "cls.predictions.bias")

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        require_absolute(config)
        config.size("type_vocab_size")
        found = super().facts_of(config, architecture)
        return found | ({"labels": CONTINUES} if cls.classes[architecture] is Head.NEXT else {})

    def head_layout(self) -> dict[str, Tensor]:
        relationship = linear_layout("head.relationship", RELATIONSHIP, self.spec.hidden, len(CONTINUES))
        if self.head is Head.NEXT:
            return linear_layout("head", RELATIONSHIP, self.spec.hidden, len(CONTINUES))
        return self.word_layout() | relationship if self.head is Head.PRETRAINING else super().head_layout()

    def answers(self, s: Session, x: Share, f: Forward, out: Mapping[str, Share]) -> dict[str, Share]:
        if self.head is Head.NEXT:
            return {"logits": linear(s, out["pooler_output"], f, "head")}
        if self.head is Head.PRETRAINING:
            return {"prediction_logits": self.word_logits(s, x, f),
                    "seq_relationship_logits": linear(s, out["pooler_output"], f, "head.relationship")}
        return super().answers(s, x, f, out)

    @property
    def head_sites(self) -> tuple[str, ...]:
        return self.word_sites if self.head is Head.PRETRAINING else super().head_sites

    @property
    def results(self) -> Mapping[str, bool]:
        if self.head is not Head.PRETRAINING:
            return super().results
        return {"last_hidden_state": True, "pooler_output": False, "prediction_logits": True,
                "seq_relationship_logits": False}
