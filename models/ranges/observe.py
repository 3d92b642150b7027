"""Observed recipes: before a function runs, an observer sees its inputs and says at which ranges it runs.

To measure a range profile, the observer records the extremes of NumPy arrays (`models/ranges/profile.py`). In
distillation the observer sees torch tensors, and every call runs at the ranges of its own batch
(`models/distill/trace.py`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import wraps
from typing import Any, Protocol

import numpy as np

from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.quantities import Quantity, real_scores
from secformer.protocols.ranges import Site
from secformer.protocols.recipes import Elementwise, Needs, Recipe


class Meet(Protocol):
    """Takes the call site, the quantities that must be known there and the inputs that they are computed from (see
    `Quantity.of`); answers with the site that the function is to run at."""

    def __call__(self, at: Site, quantities: tuple[Quantity, ...], *inputs: Any) -> Site: ...


def observed(recipe: Recipe, xp: Any, meet: Meet, *, needs: Needs | None = None) -> Recipe:
    """The recipe with functions that first let `meet` see their inputs; those that need nothing stay as they are.

    xp     the library of a session's data: `numpy` for the twin, `torch` for a TorchSession
    needs  the quantities of each function; default: those that the recipe declares
    """
    asked = {name: quantities for name, quantities in (needs or recipe.needs).items() if quantities}

    def elementwise(function: Elementwise, name: str) -> Elementwise:
        @wraps(function)
        def met(s: Session, x: Share, at: Site) -> Share:
            return function(s, x, meet(at, asked[name], s.values(x)))

        return met

    @wraps(recipe.layernorm)
    def layernorm(s: Session, x: Share, gamma: Share, beta: Share, eps: float, at: Site) -> Share:
        here = meet(at, asked["layernorm"], *map(s.values, (x, gamma, beta)))
        return recipe.layernorm(s, x, gamma, beta, eps, here)

    @wraps(recipe.softmax)
    def softmax(s: Session, scores: Share, values: Share, mask: np.ndarray, at: Site) -> Share:
        given, weighted = s.values(scores), s.values(values)
        real = xp.asarray(mask[:, None, None, :], device=given.device)
        here = meet(at, asked["softmax"], real_scores(xp, given, real), weighted, real)
        return recipe.softmax(s, scores, values, mask, here)

    met: dict[str, Any] = {"gelu": elementwise(recipe.gelu, "gelu"), "softmax": softmax, "layernorm": layernorm,
                           "tanh": elementwise(recipe.tanh, "tanh")}
    return replace(recipe, **{name: met[name] for name in asked})
