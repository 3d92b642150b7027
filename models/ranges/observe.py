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

from secformer.mpc.caches import Kept, whole
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.quantities import INPUT, Quantity, needed, real_scores
from secformer.protocols.ranges import Site
from secformer.protocols.recipes import Function, Further, Recipe
from secformer.protocols.softmax import spread_out


class Meet(Protocol):
    """Takes the call site, the quantities that must be known there and the inputs that they are computed from (see
    `Quantity.of`); answers with the site that the function is to run at."""

    def __call__(self, at: Site, quantities: tuple[Quantity, ...], *inputs: Any) -> Site: ...


def observed(recipe: Recipe, xp: Any, meet: Meet, *, asking: Recipe | None = None) -> Recipe:
    """The recipe with functions that first let `meet` see their inputs; those that need nothing stay as they are.

    xp      the library of a session's data: `numpy` for the twin, `torch` for a TorchSession
    asking  the recipe whose quantities are met; default: the same
    """
    asking = asking or recipe
    asked = {name: quantities for name, quantities in asking.needs.items() if quantities}

    def elementwise(function: Further, quantities: tuple[Quantity, ...]) -> Further:
        @wraps(function)
        def met(s: Session, *given: Any) -> Share:
            *operands, at = given
            shares = (s.values(x) for x in operands if isinstance(x, Share))  # beside them, what is public
            return function(s, *operands, meet(at, quantities, *shares))

        return met

    def further(function: Function, own: Further) -> Further:
        quantities = needed(asking.of(function), needed(function.protocol, (INPUT,)))
        return elementwise(own, quantities) if quantities else own

    @wraps(recipe.layernorm)
    def layernorm(s: Session, x: Share, gamma: Share, beta: Share | float, eps: float, at: Site) -> Share:
        moved = s.values(beta) if isinstance(beta, Share) else beta
        here = meet(at, asked["layernorm"], s.values(x), s.values(gamma), moved)
        return recipe.layernorm(s, x, gamma, beta, eps, here)

    @wraps(recipe.softmax)
    def softmax(s: Session, scores: Share, values: Kept, mask: np.ndarray, at: Site) -> Share:
        given, weighted = s.values(scores), s.values(whole(values))
        real = xp.asarray(spread_out(mask), device=given.device)
        here = meet(at, asked["softmax"], real_scores(xp, given, real), weighted, real)
        return recipe.softmax(s, scores, values, mask, here)

    fields: dict[str, Any] = {"softmax": softmax, "layernorm": layernorm,
                              **{name: elementwise(getattr(recipe, name), asked[name]) for name in ("gelu", "tanh")
                                 if name in asked}}
    return replace(recipe, **{name: fields[name] for name in asked}, observer=further)
