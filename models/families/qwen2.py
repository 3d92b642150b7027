"""Qwen2 (Yang et al., arXiv:2407.10671): a Llama with biases of queries, keys and values; later layers may look back a
limited way."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from secformer.models.families.config import Config
from secformer.models.families.llama import Llama, decoder_classes

SLIDES: Mapping[str, bool] = MappingProxyType({"sliding_attention": True, "full_attention": False})


class Qwen2(Llama):
    """A Qwen2, with the head that tells the next token."""

    model_type = "qwen2"
    classes = decoder_classes("Qwen2")

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        return super().facts_of(config, architecture) | {"qkv_bias": True, "output_bias": False, "mlp_bias": False}

    @classmethod
    def windows_of(cls, config: Config, layers: int) -> tuple[int, ...]:
        kinds = list(config.get("layer_types") or ())
        config.require("layer_types", len(kinds) == layers and set(kinds) <= SLIDES.keys(),
                       f"{' or '.join(map(repr, SLIDES))}, for each of the {layers} layers", kinds)
        window = config.size("sliding_window") if "sliding_attention" in kinds else 0
        return tuple(window if SLIDES[kind] else 0 for kind in kinds)
