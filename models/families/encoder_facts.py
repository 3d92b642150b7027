"""What an encoder's checkpoint is said to be: its sizes, the names of its classes, and where it keeps its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from secformer.models.families.activations import GELU
from secformer.models.families.architecture import Spec, later
from secformer.models.families.config import Config
from secformer.models.families.heads import Head

HEADS: Mapping[str, Head] = MappingProxyType({
    "Model": Head.ENCODER, "ForSequenceClassification": Head.SEQUENCE, "ForTokenClassification": Head.TOKEN,
    "ForQuestionAnswering": Head.QUESTION, "ForMaskedLM": Head.MASKED,
})  # by the ends of Hugging Face's names of classes


def classes(stem: str) -> Mapping[str, Head]:
    """The classes that most families have: `stem` is what their names begin with."""
    return MappingProxyType({f"{stem}{end}": head for end, head in HEADS.items()})


def require_absolute(config: Config) -> None:
    """Raises ModelError for positions that are not rows of a table: relative ones, of which old configs tell."""
    kind = config.get("position_embedding_type") or "absolute"
    config.require("position_embedding_type", kind == "absolute", "'absolute'")


@dataclass(frozen=True, kw_only=True)
class EncoderSpec(Spec):
    """The public facts of an encoder's checkpoint.

    vocab, types, positions  V, S, P: rows of the word, segment and position tables; 0 where there is no such table
    hidden, layers, heads, intermediate  C, number of layers, H, I
    eps      LayerNorm's epsilon
    tied     the masked-language head reads the word table
    pooler   the checkpoint has a pooler and its class uses it
    pad      id of the padding token
    act      the feed-forward layers' activation, a value of `activations.NAMES`
    """

    vocab: int
    types: int
    positions: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    eps: float
    tied: bool = True
    pooler: bool = True
    pad: int = 0
    act: str = later(GELU)


@dataclass(frozen=True)
class Names:
    """Where checkpoints keep an encoder's tensors: names of tables, and of layers without ".weight" and ".bias".

    layer   with {} for its number; the names from `query` to `output_norm` stand behind it
    pooler  the layer that the first token's hidden state goes through; None: the family has no such layer
    """

    words: str = "embeddings.word_embeddings.weight"
    segments: str = "embeddings.token_type_embeddings.weight"
    positions: str = "embeddings.position_embeddings.weight"
    norm: str = "embeddings.LayerNorm"
    layer: str = "encoder.layer.{}"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    intermediate: str = "intermediate.dense"
    output: str = "output.dense"
    output_norm: str = "output.LayerNorm"
    pooler: str | None = "pooler.dense"
