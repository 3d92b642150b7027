"""Checks in plaintext: whether texts stay within a model's range profile, and how far the recipe is from exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from secformer.models.data.checkpoint import PathLike
from secformer.models.data.tokenizer import Texts
from secformer.models.ranges.profile import RangeProfile, Violation, measure
from secformer.models.run.local import PlainModel
from secformer.models.run.local import reference as plaintext_model
from secformer.models.run.output import SecureOutput
from secformer.mpc.errors import InputError, RangeError
from secformer.protocols.recipes import Recipe

FIELDS = ("logits", "prediction_logits", "seq_relationship_logits", "start_logits", "end_logits", "last_hidden_state",
          "pooler_output", "sentence_embedding")


@dataclass(frozen=True, eq=False)
class Check:
    """What the twin says about texts.

    violations      quantities that leave the profile's ranges; a secure run would be wrong without a warning
    problem         the error that stopped the twin, where a value does not fit its window; else empty
    errors          largest absolute difference between the recipe's twin and `reference`, by result
    reference       the plaintext answer, as `plain_bert` gives it
    profile_source  where the range profile came from
    """

    violations: tuple[Violation, ...]
    problem: str
    errors: dict[str, float]
    reference: SecureOutput
    profile_source: str

    @property
    def ok(self) -> bool:
        return not self.violations and not self.problem


def check(model: PathLike, texts: Texts, *, recipe: Recipe | str = "auto",
          profile: PathLike | RangeProfile | None = None, **settings: Any) -> Check:
    """Compares the texts' values with a range profile, and a recipe's twin with exact functions.

    Raises as `secure_bert` does, before anything is shared.
    """
    loaded = PlainModel.from_pretrained(model, recipe=recipe, profile=profile, **settings)
    reference = plaintext_model(loaded.folder, **settings)(texts)
    found: list[Violation] = []
    if loaded.profile is not None:
        measured = measure(loaded.folder, texts, recipe=loaded.recipe, truncation=loaded.settings.truncation)
        found = loaded.profile.violations(measured)
    errors, problem = {}, ""
    try:
        errors = differences(loaded(texts), reference)
    except RangeError as error:
        problem = str(error)
    return Check(tuple(found), problem, errors, reference, loaded.profile_source)


def differences(a: SecureOutput, b: SecureOutput) -> dict[str, float]:
    """The largest absolute difference of each result that both outputs have. Raises InputError for different texts."""
    if a.attention_mask.shape != b.attention_mask.shape:
        raise InputError("the two outputs are not of the same texts; compare outputs of the same texts")
    pairs = {name: (getattr(a, name), getattr(b, name)) for name in FIELDS}
    return {n: float(np.abs(x - y).max()) for n, (x, y) in pairs.items() if x is not None and y is not None}
