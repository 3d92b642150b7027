"""Qwen3 (Yang et al., arXiv:2505.09388): a Qwen2 without these biases, whose queries and keys go through a norm."""

from __future__ import annotations

from typing import Any

from secformer.models.families.config import Config
from secformer.models.families.llama import decoder_classes
from secformer.models.families.qwen2 import Qwen2


class Qwen3(Qwen2):
    """A Qwen3, with the head that tells the next token."""

    model_type = "qwen3"
    classes = decoder_classes("Qwen3")

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        biased = bool(config.get("attention_bias"))
        return super().facts_of(config, architecture) | {"qkv_bias": biased, "output_bias": biased, "head_norm": True}
