"""Which functions a checkpoint was trained for, as its config.json says it, and which recipes suit it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from secformer.models.families.architecture import Spec
from secformer.models.ranges.profile import MARGIN, Probe, observed
from secformer.mpc.errors import ModelError, SettingsError
from secformer.mpc.sessions.plain import PlainSession
from secformer.protocols.gelu import gelu_exact
from secformer.protocols.mpcformer import QUAD
from secformer.protocols.ranges import Range
from secformer.protocols.recipes import EXACT, MPCFORMER, SECFORMER, Recipe, recipe_named
from secformer.protocols.softmax import QUAD_SHIFT, softmax_exact

KEY = "secformer"  # of the entry in config.json
STANDS_IN = 0.05   # a recipe whose GeLU and softmax are this close to exact ones needs no other weights
DESIGNS: Mapping[str, Recipe] = MappingProxyType({r.name: r for r in (SECFORMER, MPCFORMER)})


def constants(recipe: Recipe) -> dict[str, Any]:
    """The numbers that a student's weights have been trained around."""
    return {"quad_shift": QUAD_SHIFT} | ({"quad": list(QUAD)} if recipe is MPCFORMER else {})


def entry(recipe: Recipe) -> dict[str, Any]:
    """What config.json says under KEY about a student of this design."""
    return {"recipe": recipe.name, "constants": constants(recipe)}


def trained_for(spec: Spec) -> Recipe | None:
    """The recipe that a checkpoint says it was trained for. Raises SettingsError for an unknown name, ModelError where
    it was trained around other numbers than the protocols have."""
    if spec.recipe is None:
        return None
    recipe = recipe_named(spec.recipe)
    ours = json.dumps(constants(recipe), sort_keys=True)
    if recipe.name in DESIGNS and spec.constants not in ("", ours):
        raise ModelError(f"the checkpoint was trained for {recipe.name!r} with the constants {spec.constants}; the "
                         f"protocols have {ours}: distil it again")
    return recipe


def stands_in(recipe: Recipe) -> bool:
    """Whether a recipe's GeLU and softmax stand in for the exact ones, so that any checkpoint keeps its answers; else
    it is meant for models distilled for it. Asked of the functions themselves, on a few values in the twin."""
    if recipe is EXACT:
        return True
    watched, s = observed(recipe), PlainSession()
    x = np.linspace(-4.0, 4.0, 257)
    off = np.abs(watched.gelu(s, s.accept(x), Probe(MARGIN)).data - gelu_exact(x)).max()
    scores, mask = 4.0 * np.sin(np.arange(64.0) ** 2).reshape(1, 1, 8, 8), np.ones((1, 8), dtype=bool)
    at = Probe(MARGIN)
    at["score"] = Range(-8.0, 8.0)
    weights = watched.softmax(s, s.accept(scores), s.accept(np.eye(8)[None, None]), mask, at).data
    return bool(max(off, np.abs(weights - softmax_exact(scores, mask)).max()) <= STANDS_IN)


def suits(recipe: Recipe, trained: Recipe | None) -> bool:
    """Whether a recipe computes the functions that a checkpoint was trained for (None: a BERT's own)."""
    if trained is None or stands_in(trained):
        return stands_in(recipe)
    return recipe.gelu is trained.gelu and recipe.softmax is trained.softmax


def require(recipe: Recipe, spec: Spec, where: object) -> None:
    """Raises SettingsError where a recipe computes other functions than the checkpoint was trained for."""
    trained = trained_for(spec)
    if suits(recipe, trained):
        return
    if trained is None:
        raise SettingsError(f"{where} is an ordinary checkpoint and the recipe {recipe.name!r} computes other "
                            f"functions than a BERT's, so its answers would mean nothing: distil a student first ("
                            f"secformer distill), take the recipe 'faithful', or say untrained_recipe=True "
                            f"(--untrained-recipe)")
    raise SettingsError(f"{where} was distilled for the functions of {trained.name!r}, the recipe {recipe.name!r} has "
                        f"others, so its answers would mean nothing: leave the recipe at 'auto', or say "
                        f"untrained_recipe=True (--untrained-recipe)")


def plaintext(spec: Spec) -> Recipe:
    """Whose answers are a checkpoint's own in plaintext: exact functions, or those that it was distilled for."""
    trained = trained_for(spec)
    return EXACT if trained is None or stands_in(trained) else trained
