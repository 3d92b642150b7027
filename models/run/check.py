"""Before anything is shared: do texts stay within a model's range profile, and how far is the recipe from exact?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from secformer.models.data.tokenizer import Texts
from secformer.models.ranges.profile import RangeProfile, Violation, measure
from secformer.models.run.local import PlainModel
from secformer.models.run.local import reference as plaintext_model
from secformer.models.run.output import SecureOutput
from secformer.models.run.prepare import PathLike
from secformer.mpc.errors import InputError, RangeError
from secformer.protocols.recipes import Recipe

FIELDS = ("logits", "start_logits", "end_logits", "last_hidden_state", "pooler_output")


@dataclass(frozen=True, eq=False)
class Check:
    """What the twin says about texts.

    violations      quantities that leave the profile's ranges: the secure result would be wrong without a sign
    problem         what stopped the twin, where a value would not fit a word's window
    errors          largest absolute difference of the recipe's twin from exact functions, by result
    reference       the answer in plaintext, as of `plain_bert`
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
    """Compares texts with a profile and a recipe's twin with exact functions; raises as `secure_bert` does."""
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
    """Largest absolute difference of each result that both have."""
    if a.attention_mask.shape != b.attention_mask.shape:
        raise InputError("outputs of different texts were compared")
    pairs = {name: (getattr(a, name), getattr(b, name)) for name in FIELDS}
    return {n: float(np.abs(x - y).max()) for n, (x, y) in pairs.items() if x is not None and y is not None}
