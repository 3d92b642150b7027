"""Mistral (Jiang et al., arXiv:2310.06825): a Llama whose tokens look back a limited way, if the config says so."""

from __future__ import annotations

from secformer.models.families.config import Config
from secformer.models.families.llama import Llama, decoder_classes


class Mistral(Llama):
    """A Mistral, with the head that tells the next token."""

    model_type = "mistral"
    classes = decoder_classes("Mistral")

    @classmethod
    def windows_of(cls, config: Config, layers: int) -> tuple[int, ...]:
        return (0 if config.get("sliding_window") is None else config.size("sliding_window"),) * layers
