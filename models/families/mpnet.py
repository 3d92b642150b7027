"""MPNet (Song et al., NeurIPS 2020): BERT with a bias for relative positions, one table for all layers.

all-mpnet-base-v2, a sentence encoder, is one. B texts, H heads, T tokens of the longest.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from secformer.models.data.batch import Batch
from secformer.models.data.inputs import TokenInputs
from secformer.models.data.tensors import Part, Tensor
from secformer.models.families.activations import GELU
from secformer.models.families.blocks import Forward
from secformer.models.families.config import Config
from secformer.models.families.encoder import Encoder
from secformer.models.families.encoder_facts import Names, classes
from secformer.models.families.heads import Head, TextHead, WordHead
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.ranges import Site
from secformer.protocols.relative import index_of, position_bias, shared_buckets

BIAS = "relative_attention_bias"
BUCKETS = 32  # rows of the table; transformers' class computes with so many whatever the config says
PADDING = 1   # the row of the position table that padding has, and the id of the padding token


class MPNet(Encoder):
    """An MPNet encoder, with the heads that Hugging Face has for it."""

    model_type = "mpnet"
    classes = classes("MPNet")
    prefix = "mpnet."
    names = Names(query="attention.attn.q", key="attention.attn.k", value="attention.attn.v",
                  attention="attention.attn.o", attention_norm="attention.LayerNorm")
    pooled = (Head.ENCODER,)
    text_head = TextHead("classifier.out_proj", "classifier.dense")
    word_head = WordHead("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias")

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        rows = config.get("relative_attention_num_buckets")
        config.require("relative_attention_num_buckets", rows == BUCKETS, f"{BUCKETS}, the number that transformers' "
                       f"MPNet computes with")
        most = config.size("max_position_embeddings")
        config.require("max_position_embeddings", most > PADDING + 1, f"above {PADDING + 1}, as positions begin there")
        return super().facts_of(config, architecture) | {"pad": PADDING}

    def embedding_layout(self) -> dict[str, Tensor]:
        table = Tensor((Part((f"encoder.{BIAS}.weight",), (BUCKETS, self.spec.heads)),))
        return super().embedding_layout() | {BIAS: table}

    # ---- inputs ------------------------------------------------------------------------------------------------------

    @cached_property
    def inputs(self) -> TokenInputs:
        return replace(super().inputs, longest=self.spec.positions - PADDING - 1, pad=PADDING)

    def positions(self, batch: Batch) -> np.ndarray:
        return batch.counted(PADDING)

    # ---- the program -------------------------------------------------------------------------------------------------

    def scores(self, s: Session, q: Share, k: Share, f: Forward, at: Site, weights: str) -> Share:
        index = index_of(f.batch.steps, shared_buckets)
        return super().scores(s, q, k, f, at, weights) + position_bias(f.parameters.vector(BIAS), index)

    @property
    def word_act(self) -> str:
        return GELU
