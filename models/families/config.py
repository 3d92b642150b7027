"""What a checkpoint says about itself: `config.json`, read and checked entry by entry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

from secformer.models.data.library import quiet, transformers
from secformer.models.families.heads import Head
from secformer.models.families.modules import SETTINGS, read_settings
from secformer.mpc.errors import ModelError
from secformer.mpc.strict_json import read_foreign

FILE = "config.json"
KEY = "secformer"  # the key of the entry that says what a student was trained for
PROBLEMS = MappingProxyType({"regression": "regression", "single_label_classification": "single",
                             "multi_label_classification": "multi"})
OLD_SCORE = "sbert_ce_default_activation_function"
SCORES = MappingProxyType({"Sigmoid": "sigmoid", "Identity": "identity"})  # by the names of torch's classes


@dataclass(frozen=True)
class Config:
    """The entries of a config file, as attributes of `entries`. Every error names the file and the key."""

    entries: Any
    file: Path

    @property
    def model_type(self) -> str:
        """The family, as Hugging Face names it."""
        return str(self.get("model_type"))

    @property
    def architectures(self) -> list[str]:
        """The classes that the checkpoint was saved from, as Hugging Face names them."""
        named = self.get("architectures") or ()
        self.require("architectures", isinstance(named, list | tuple), "a list of names of classes")
        return [str(name) for name in named]

    def get(self, key: str, default: Any = None) -> Any:
        """An entry, or the default where the file has none."""
        return getattr(self.entries, key, default)

    def require(self, key: str, holds: bool, wanted: str, came: object = None) -> None:
        """Raises ModelError, which says what was wanted and what came, unless `holds`."""
        if not holds:
            came = self.get(key) if came is None else came
            raise ModelError(f"{self.file}: {key} must be {wanted}, got {came!r}; this model is not supported")

    def named(self, key: str, known: Mapping[str, str]) -> str:
        """What `known` has for an entry. Raises ModelError, which lists the entries that it has, for any other."""
        value = self.get(key)
        listed = ", ".join(map(repr, known))
        self.require(key, isinstance(value, str) and value in known, f"one of {listed}")
        return known[str(value)]

    def size(self, key: str) -> int:
        """An entry that is a positive whole number. Raises ModelError for anything else."""
        value = self.get(key)
        self.require(key, isinstance(value, int) and not isinstance(value, bool) and value > 0, "a positive integer")
        return int(value)

    def labels(self) -> tuple[str, ...]:
        """The names of the labels, by label id. Raises ModelError where an id has no name."""
        try:
            names = {int(k): str(v) for k, v in (self.get("id2label") or {}).items()}
        except (ValueError, AttributeError):
            names = {}
        self.require("id2label", bool(names) and sorted(names) == list(range(len(names))),
                     "names for the label ids 0, 1, 2, ...")
        return tuple(names[i] for i in range(len(names)))

    def problem(self, head: Head, labels: int) -> str:
        """How logits turn into probabilities: "single", "multi" or "regression"."""
        if head is not Head.SEQUENCE:
            return "single"
        if self.get("problem_type") is None:
            return "regression" if labels == 1 else "single"
        return self.named("problem_type", PROBLEMS)

    def score(self, head: Head, labels: int) -> str:
        """What turns the single logit of a text into its score, as sentence-transformers' CrossEncoder reads the
        config: "identity" where the config names that class, "sigmoid" where it names that one or none.

        Raises ModelError for a class that is neither.
        """
        if head is not Head.SEQUENCE or labels != 1:
            return "sigmoid"
        entry = self.get("sentence_transformers")
        beside = read_settings(self.file.parent).get("activation_fn")  # where the newest versions write it
        if beside is not None:
            key, name = f"activation_fn of {SETTINGS}", beside
        elif isinstance(entry, Mapping) and "activation_fn" in entry:
            key, name = "sentence_transformers.activation_fn", entry["activation_fn"]
        else:
            key, name = OLD_SCORE, self.get(OLD_SCORE)
        kind = str(name).rpartition(".")[2]
        self.require(key, name is None or kind in SCORES, f"a class named {' or '.join(SCORES)}", name)
        return "sigmoid" if name is None else SCORES[kind]

    def student(self) -> tuple[str | None, str]:
        """The name of the recipe that the checkpoint was trained for, and its functions' constants, as sorted JSON."""
        entry = self.get(KEY)
        constants = entry.get("constants") if isinstance(entry, dict) else None
        recipe = entry.get("recipe") if isinstance(entry, dict) else entry
        self.require(KEY, recipe is None or isinstance(recipe, str), 'a recipe, as in {"recipe": "name"}', recipe)
        return recipe, "" if constants is None else json.dumps(constants, sort_keys=True)

    def filled(self) -> Config:
        """The same entries, completed with the defaults that `transformers` has for this model type.

        Raises ModelError for entries that the library refuses.
        """
        library = transformers()
        with quiet("transformers"):
            try:
                filled = library.CONFIG_MAPPING[self.model_type].from_dict(vars(self.entries))
            except Exception as error:  # the library raises many types; each means an unusable config
                raise ModelError(f"{self.file} has an entry that transformers' config of the type "
                                 f"{self.model_type!r} does not take: {_first_line(error)}. Copy the file again, or "
                                 f"mend that entry") from error
        return Config(filled, self.file)


def read_config(folder: Path) -> Config:
    """Reads a local folder's config file, without network. Raises ModelError for a missing or unreadable file."""
    file = folder / FILE
    if not file.is_file():
        raise ModelError(f"{folder} has no {FILE}; give a folder as Hugging Face's save_pretrained writes it")
    try:
        facts = read_foreign(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file}: {_first_line(error)}") from error
    if not isinstance(facts, Mapping) or not isinstance(facts.get("model_type"), str):
        raise ModelError(f"{file} does not say its model_type; give a folder as Hugging Face's save_pretrained writes "
                         f"it")
    return Config(SimpleNamespace(**facts), file)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"
