"""Encoders whose embedding tables have rows of their own size, and a linear layer from there to the hidden size.

N packed tokens, E entries of an embedding, C hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from secformer.models.data.tensors import Tensor, linear_layout
from secformer.models.families.blocks import Forward, linear
from secformer.models.families.config import Config
from secformer.models.families.encoder import Encoder
from secformer.models.families.encoder_facts import EncoderSpec
from secformer.mpc.session import Session
from secformer.mpc.shares import Share

PROJECTION = "embedding.projection"


@dataclass(frozen=True, kw_only=True)
class FactorisedSpec(EncoderSpec):
    """The public facts of an encoder, and `embedding`, E, the entries of a row of its embedding tables."""

    embedding: int


class Factorised(Encoder):
    """An encoder that brings its embeddings (N, E), behind their LayerNorm, to (N, C).

    projection  where the checkpoint keeps that linear layer
    always      the layer is there where E = C, too
    """

    spec_type: ClassVar[type[FactorisedSpec]] = FactorisedSpec
    projection: ClassVar[str]
    always: ClassVar[bool]

    spec: FactorisedSpec

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        return super().facts_of(config, architecture) | {"embedding": config.size("embedding_size")}

    @property
    def embedded(self) -> int:
        return self.spec.embedding

    @property
    def projects(self) -> bool:
        return self.always or self.embedded != self.spec.hidden

    def embedding_layout(self) -> dict[str, Tensor]:
        found = super().embedding_layout()
        if self.projects:
            found |= linear_layout(PROJECTION, self.projection, self.embedded, self.spec.hidden)
        return found

    def enter(self, s: Session, x: Share, f: Forward) -> Share:
        x = super().enter(s, x, f)
        if not self.projects:
            return x
        with s.scope("linear"):
            return linear(s, x, f, PROJECTION)

    @property
    def sizes(self) -> Mapping[str, int]:
        return {**super().sizes, "embedding size": self.embedded}
