"""Activations that some families have beside the four functions of every recipe."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from secformer.models.ranges.observe import observed
from secformer.models.ranges.profile import MARGIN, Probe, probe
from secformer.mpc.errors import RangeError, SettingsError
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.shares import Share
from secformer.protocols.activations import RELU, relu
from secformer.protocols.quantities import INPUT, Quantity, needs
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import EXACT, FAITHFUL, RECIPES

AT = {"input": Range(-9.0, 30.0)}
X = np.linspace(-9.0, 30.0, 401)


def test_relu(run: Any) -> None:
    got = run(lambda s, x: relu(s, x, AT), X, fracs=[32])
    assert np.abs(got - np.maximum(X, 0.0)).max() <= 2.0**-14


@pytest.mark.parametrize("at, message", [
    ({}, "needs the range of 'input'"),
    ({"input": Range(1.0, -1.0)}, "low <= high"),
    ({"input": Range(-math.inf, 1.0)}, "finite"),
])
def test_bad_ranges(at: dict[str, Range], message: str) -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match=message):
        relu(s, s.public(1.0, (3,)), at)


def test_every_recipe_has_a_further_function() -> None:
    """The protocol, or the exact one, or what the recipe names itself."""
    for recipe in RECIPES.values():
        assert recipe.of(RELU) is (RELU.exact if recipe is EXACT else RELU.protocol)

    def mine(s: Any, x: Share, at: Site) -> Share:
        return x * 2

    own = replace(FAITHFUL, others={RELU.name: mine})
    assert own.of(RELU) is mine and own.gelu is FAITHFUL.gelu


def test_the_exact_one_runs_on_plain_numbers_only() -> None:
    s = PlainSession()
    np.testing.assert_array_equal(s.values(EXACT.of(RELU)(s, s.accept(X), {})), np.maximum(X, 0.0))
    with pytest.raises(SettingsError, match="float64 twin"):
        PlanRecorder().record(lambda r: EXACT.of(RELU)(r, r.accept(ghost((3,))), {}))


@pytest.mark.parametrize("recipe", [FAITHFUL, EXACT])
def test_its_ranges_are_measured_like_any_other(recipe: Any) -> None:
    """By what is declared, or the input where nothing is; the quantities are those of the recipe that asks."""
    s, at = PlainSession(), Probe(MARGIN)
    observed(recipe, np, probe).of(RELU)(s, s.accept(X), at)
    assert dict(at) == {"input": Range(-9.0, 30.0)}
    squared = Quantity("squared", lambda xp, x: x * x)

    @needs(INPUT, squared)
    def mine(s: Any, x: Share, at: Site) -> Share:
        return x * 2

    asked = Probe(MARGIN)
    asking = replace(FAITHFUL, others={RELU.name: mine})
    observed(recipe, np, probe, asking=asking).of(RELU)(s, s.accept(X), asked)
    assert set(asked) == {"input", "squared"} and asked["squared"].high == 900.0
