"""What a checkpoint says about itself: a BERT's sizes, its head and its labels, from `config.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secformer.models.library import quiet, transformers
from secformer.mpc.errors import ModelError

ENCODER = "BertModel"
SEQUENCE = "BertForSequenceClassification"
TOKEN = "BertForTokenClassification"
QUESTION = "BertForQuestionAnswering"
MASKED = "BertForMaskedLM"
ARCHITECTURES = (ENCODER, SEQUENCE, TOKEN, QUESTION, MASKED)
ACTIVATIONS = ("gelu", "gelu_python")  # both are x/2 (1 + erf(x / sqrt 2))


@dataclass(frozen=True)
class BertSpec:
    """The public facts of a BERT checkpoint.

    architecture  one of ARCHITECTURES, which says the head
    vocab, types, positions  rows of the word, segment and position tables
    hidden, layers, heads, intermediate  C, number of layers, H, width of the feed-forward part
    eps           LayerNorm's epsilon
    labels        names by label id (classifiers); one label without classes is a regression
    problem       "single", "multi" or "regression": how logits turn into probabilities
    tied          the masked-language head reads the word table
    pooler        the checkpoint has a pooler and its architecture uses it
    recipe        the recipe that the checkpoint was trained for, where its config names one
    constants     the numbers that it was trained around, as sorted JSON, where its config states them
    """

    architecture: str
    vocab: int
    types: int
    positions: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    eps: float
    labels: tuple[str, ...] = ()
    problem: str = "single"
    tied: bool = True
    pooler: bool = True
    recipe: str | None = None
    constants: str = ""
    pad: int = 0

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


def read_spec(folder: Path) -> BertSpec:
    """Reads `config.json` of a local folder; never asks the network.

    Raises ModelError for a missing or unreadable file and for a model that is not supported.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json; give a folder as Hugging Face's save_pretrained writes it")
    library = transformers()
    with quiet("transformers"):
        try:
            config = library.AutoConfig.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # the library raises many kinds; all of them mean an unusable config
            raise ModelError(f"cannot read {folder / 'config.json'}: {_first_line(error)}") from error
    return _spec(config, folder)


def _spec(config: Any, folder: Path) -> BertSpec:
    architecture = _architecture(config, folder)
    _require(folder, "hidden_act", config.hidden_act in ACTIVATIONS, config.hidden_act, "'gelu'")
    kind = getattr(config, "position_embedding_type", None) or "absolute"
    _require(folder, "position_embedding_type", kind == "absolute", kind, "'absolute'")
    decoder = bool(getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False))
    _require(folder, "is_decoder or add_cross_attention", not decoder, True, "an encoder (false)")
    sizes = ("vocab_size", "type_vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers",
             "num_attention_heads", "intermediate_size")
    for key in sizes:
        value = getattr(config, key)
        _require(folder, key, isinstance(value, int) and value > 0, value, "a positive integer")
    heads = config.num_attention_heads
    _require(folder, "hidden_size", config.hidden_size % heads == 0, config.hidden_size,
             f"a multiple of num_attention_heads = {heads}")
    classes = architecture in (SEQUENCE, TOKEN)
    labels = _labels(config, folder) if classes else ()
    recipe, constants = _trained_for(config, folder)
    return BertSpec(
        architecture=architecture,
        vocab=config.vocab_size,
        types=config.type_vocab_size,
        positions=config.max_position_embeddings,
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=heads,
        intermediate=config.intermediate_size,
        eps=float(config.layer_norm_eps),
        labels=labels,
        problem=_problem(config, architecture, len(labels)),
        tied=bool(getattr(config, "tie_word_embeddings", True)),
        pooler=architecture in (ENCODER, SEQUENCE),
        recipe=recipe,
        constants=constants,
        pad=config.pad_token_id or 0,
    )


def _architecture(config: Any, folder: Path) -> str:
    found = list(config.architectures or ())
    supported = [name for name in found if name in ARCHITECTURES]
    if config.model_type != "bert" or not supported:
        raise ModelError(
            f"{folder} holds model type {config.model_type!r}, architectures {found}; "
            f"supported are type 'bert' with {', '.join(ARCHITECTURES)}. Say one of these in its config.json"
        )
    return str(supported[0])


def _labels(config: Any, folder: Path) -> tuple[str, ...]:
    names = {int(k): str(v) for k, v in (config.id2label or {}).items()}
    _require(folder, "id2label", bool(names) and sorted(names) == list(range(len(names))), config.id2label,
             "names for the label ids 0, 1, 2, ...")
    return tuple(names[i] for i in range(len(names)))


def _problem(config: Any, architecture: str, labels: int) -> str:
    if architecture != SEQUENCE:
        return "single"
    stated = getattr(config, "problem_type", None)
    if stated is None:
        return "regression" if labels == 1 else "single"
    return {"regression": "regression", "multi_label_classification": "multi"}.get(stated, "single")


def _trained_for(config: Any, folder: Path) -> tuple[str | None, str]:
    entry = getattr(config, "secformer", None)
    constants = entry.get("constants") if isinstance(entry, dict) else None
    if isinstance(entry, dict):
        entry = entry.get("recipe")
    _require(folder, "secformer", entry is None or isinstance(entry, str), entry, 'a recipe: {"recipe": "name"}')
    return entry, "" if constants is None else json.dumps(constants, sort_keys=True)


def _require(folder: Path, key: str, holds: bool, came: object, wanted: str) -> None:
    if not holds:
        raise ModelError(f"{folder / 'config.json'}: {key} must be {wanted}, got {came!r}; this model is not supported")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"
