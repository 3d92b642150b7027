"""Which functions a checkpoint was trained for, as its config.json says it, and which recipes suit it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from secformer.models.families.architecture import Spec
from secformer.mpc.errors import ModelError, SettingsError
from secformer.protocols.recipes import EXACT, MPCFORMER, SECFORMER, Recipe, recipe_named

KEY = "secformer"  # key of the entry in config.json that names a student's recipe and constants
DESIGNS: Mapping[str, Recipe] = MappingProxyType({r.name: r for r in (SECFORMER, MPCFORMER)})


def entry(recipe: Recipe) -> dict[str, Any]:
    """What config.json says under KEY about a student of this design."""
    return {"recipe": recipe.name, "constants": recipe.constants}


def trained_for(spec: Spec) -> Recipe | None:
    """The recipe that a checkpoint says it was trained for. Raises SettingsError for an unknown name, ModelError if it
    was trained around other constants than this version uses."""
    if spec.recipe is None:
        return None
    recipe = recipe_named(spec.recipe)
    ours = json.dumps(recipe.constants, sort_keys=True)
    if recipe.name in DESIGNS and spec.constants not in ("", ours):
        raise ModelError(f"the checkpoint was trained for {recipe.name!r} with the constants {spec.constants}; this "
                         f"version uses {ours}. Distil the model again")
    return recipe


def suits(recipe: Recipe, trained: Recipe | None) -> bool:
    """Whether a recipe computes the functions that a checkpoint was trained for (None: the exact ones)."""
    if trained is None or trained.ordinary:
        return recipe.ordinary
    return recipe.gelu is trained.gelu and recipe.softmax is trained.softmax


def require(recipe: Recipe, spec: Spec, where: object) -> None:
    """Raises SettingsError if a recipe computes different functions from those the checkpoint was trained with."""
    trained = trained_for(spec)
    if suits(recipe, trained):
        return
    if trained is None:
        raise SettingsError(f"{where} is an ordinary checkpoint. The recipe {recipe.name!r} computes different "
                            f"functions from those the checkpoint was trained with, so its answers would be "
                            f"meaningless. Distil a student first (secformer distill), choose the recipe "
                            f"'faithful', or pass untrained_recipe=True (--untrained-recipe)")
    raise SettingsError(f"{where} was distilled for the functions of {trained.name!r}. The recipe {recipe.name!r} "
                        f"computes different functions, so its answers would be meaningless. Leave the recipe at "
                        f"'auto', or pass untrained_recipe=True (--untrained-recipe)")


def plaintext(spec: Spec) -> Recipe:
    """The recipe that gives the checkpoint's own answers in plaintext: EXACT, or the one that it was distilled for."""
    trained = trained_for(spec)
    return EXACT if trained is None or trained.ordinary else trained
