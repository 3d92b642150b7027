"""Checks in plaintext: whether texts stay within a model's range profile, and how far the recipe is from exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secformer.models.data.batch import Row
from secformer.models.data.checkpoint import PathLike
from secformer.models.data.tokenizer import Texts
from secformer.models.ranges.profile import RangeProfile, Violation, leaving
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

    violations      quantities that leave the profile's ranges, by text; a secure run of these texts may be wrong
    problem         what else does not fit, by text: values that no range profile records; else empty
    errors          largest absolute difference between the recipe's twin and `reference`, by result
    reference       the plaintext answer, as `plain_model` gives it
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

    Raises as `secure_model` does, before anything is shared.
    """
    loaded = PlainModel.from_pretrained(model, recipe=recipe, profile=profile, **settings)
    reference = plaintext_model(loaded.folder, **settings)(texts)
    rows = loaded.folder.tokenizer.rows(texts, truncation=loaded.settings.truncation)
    found: list[Violation] = []
    if loaded.profile is not None:
        found = leaving(loaded.folder, loaded.profile, rows, recipe=loaded.recipe)
    errors = differences(loaded(texts), reference)
    loaded.session.strict = True  # from here on, it stops where a value does not fit
    problems = _problems(loaded, texts, rows)
    return Check(tuple(found), "; ".join(problems), errors, reference, loaded.profile_source)


def _problems(loaded: PlainModel, texts: Texts, rows: Sequence[Row]) -> list[str]:
    """What stops the strict twin, by text. One run says that nothing does."""
    if _problem(loaded, texts) is None:
        return []
    each = [{"input_ids": [row.ids], "token_type_ids": [row.segments], "attention_mask": [row.mask]} for row in rows]
    return [f"text {i}: {problem}" for i, one in enumerate(each) if (problem := _problem(loaded, one)) is not None]


def _problem(loaded: PlainModel, texts: Texts) -> str | None:
    try:
        loaded(texts)
    except RangeError as error:
        return str(error)
    return None


def differences(a: SecureOutput, b: SecureOutput) -> dict[str, float]:
    """The largest absolute difference of each result that both outputs have. Raises InputError for different texts."""
    if a.attention_mask.shape != b.attention_mask.shape:
        raise InputError("the two outputs are not of the same texts; compare outputs of the same texts")
    pairs = {name: (getattr(a, name), getattr(b, name)) for name in FIELDS}
    return {n: float(np.abs(x - y).max()) for n, (x, y) in pairs.items() if x is not None and y is not None}
