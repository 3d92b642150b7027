"""Which functions a checkpoint was trained for, as its config.json says it, and which recipes suit it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from secformer.models.families.activations import FURTHER
from secformer.models.families.architecture import Spec
from secformer.models.ranges.observe import observed
from secformer.models.ranges.profile import MARGIN, Probe, probe
from secformer.mpc.errors import ModelError, SettingsError
from secformer.mpc.sessions.plain import PlainSession
from secformer.protocols.fidelity import is_declared, student_of
from secformer.protocols.gelu import gelu_exact
from secformer.protocols.recipes import EXACT, MPCFORMER, SECFORMER, Recipe, recipe_named
from secformer.protocols.softmax import softmax_exact

NEAR = 0.05  # a recipe whose GeLU and softmax are this close to exact ones needs no other weights
DESIGNS: Mapping[str, Recipe] = MappingProxyType({r.name: r for r in (SECFORMER, MPCFORMER)})


def entry(recipe: Recipe) -> dict[str, Any]:
    """What config.json says under `families/config.KEY` about a student of this design."""
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
        return recipe.ordinary and tried(recipe) <= NEAR
    same = _same(recipe.gelu, trained.gelu) and _same(recipe.softmax, trained.softmax)
    return same and dict(recipe.others) == dict(trained.others)


def _same(a: Callable[..., Any], b: Callable[..., Any]) -> bool:
    """Whether two protocols compute one function, around the same constants."""
    mine, theirs = student_of(a), student_of(b)
    if mine is None or theirs is None:
        return a is b
    return (mine.function, mine.constants) == (theirs.function, theirs.constants)


def tried(recipe: Recipe) -> float:
    """How far a recipe's GeLU, softmax and own activations are from the exact ones, on a few values in the twin. Only
    functions that declare nothing of it are tried (see `protocols/fidelity.py`); 0 where there are none."""
    watched, s, off = observed(recipe, np, probe), PlainSession(strict=False), 0.0
    x = np.linspace(-4.0, 4.0, 257)
    if not is_declared(recipe.gelu):
        off = float(np.abs(s.values(watched.gelu(s, s.accept(x), Probe(MARGIN))) - gelu_exact(x)).max())
    for name in FURTHER.keys() & recipe.others.keys():
        if not is_declared(recipe.others[name]):
            mine = s.values(watched.of(FURTHER[name])(s, s.accept(x), Probe(MARGIN)))
            off = max(off, float(np.abs(mine - s.values(FURTHER[name].exact(s, s.accept(x), {}))).max()))
    if not is_declared(recipe.softmax):
        scores, mask = 4.0 * np.sin(np.arange(64.0) ** 2).reshape(1, 1, 8, 8), np.ones((1, 8), dtype=bool)
        weights = watched.softmax(s, s.accept(scores), s.accept(np.eye(8)[None, None]), mask, Probe(MARGIN))
        off = max(off, float(np.abs(s.values(weights) - softmax_exact(scores, mask)).max()))
    return off


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
    """The recipe that gives a checkpoint's own answers in plaintext, whatever values it meets: EXACT, or the functions
    that the checkpoint was distilled for, on plain numbers."""
    trained = trained_for(spec)
    if trained is None or trained.ordinary:
        return EXACT
    own = student_of(trained.softmax)
    softmax = EXACT.softmax if own is None else own.plain or trained.softmax
    return replace(EXACT, name=trained.name, gelu=trained.gelu, softmax=softmax)
