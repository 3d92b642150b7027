"""Recipes are frozen values; their rounds are counted; the exact one stays in the twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from secformer.mpc.errors import SettingsError
from secformer.mpc.plain import PlainSession
from secformer.mpc.recorder import PlanRecorder
from secformer.mpc.shares import Share
from secformer.protocols.gelu import gelu_exact
from secformer.protocols.layernorm import layernorm_exact
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import EXACT, FAITHFUL, RECIPES, SECFORMER, Recipe, recipe_named
from secformer.protocols.softmax import softmax_exact

SITE: Site = {
    "input": Range(-12.0, 12.0), "score": Range(-20.0, 20.0), "spread": Range(-30.0, 0.0),
    "exp_sum": Range(1.0, 100.0), "quad_sum": Range(100.0, 9000.0), "variance": Range(2.5, 100.0),
}


def rounds(program: Callable[..., Any], *shapes: tuple[int, ...]) -> int:
    """Rounds of a program that is given pending products of those shapes, and settles its result."""

    def whole(s: PlanRecorder) -> None:
        shares = [s.mul(s.accept(np.zeros(shape)), s.accept(np.zeros(shape))) for shape in shapes]
        s.settle(program(s, *shares))

    return PlanRecorder().record(whole).rounds - len(shapes)


def test_names() -> None:
    assert list(RECIPES) == ["secformer", "faithful", "exact"]
    for name, recipe in RECIPES.items():
        assert recipe_named(name) is recipe and recipe.name == name
    with pytest.raises(SettingsError, match=r"secformer, faithful, exact.*'fastest'"):
        recipe_named("fastest")


def test_a_variant_is_a_value() -> None:
    def zero(s: Any, x: Share, at: Site) -> Share:
        return x * 0

    mine = replace(FAITHFUL, name="mine", gelu=zero)
    assert mine.gelu is zero and mine.softmax is FAITHFUL.softmax and FAITHFUL.gelu is not zero
    with pytest.raises(FrozenInstanceError):
        FAITHFUL.gelu = zero  # type: ignore[misc]
    with pytest.raises(TypeError):
        RECIPES["mine"] = mine  # type: ignore[index]
    s = PlainSession()
    assert (mine.gelu(s, s.public(3.0, (2,)), {}).data == 0.0).all()


@pytest.mark.parametrize("recipe, gelu, tanh, softmax, layernorm", [(FAITHFUL, 2, 2, 21, 6), (SECFORMER, 8, 2, 33, 38)])
def test_rounds(recipe: Recipe, gelu: int, tanh: int, softmax: int, layernorm: int) -> None:
    """As the docstrings say, with the settling of the result; T = 128; the paper's iterations for SecFormer."""
    at, t = SITE, 128
    mask = np.ones((1, t), dtype=bool)
    assert rounds(lambda s, x: recipe.gelu(s, x, at), (9,)) == gelu
    assert rounds(lambda s, x: recipe.tanh(s, x, at), (9,)) == tanh

    def attend(s: Any, scores: Share) -> Share:
        return recipe.softmax(s, scores, s.accept(np.zeros((1, 2, t, 8))), mask, at)

    def normalise(s: Any, x: Share) -> Share:
        return recipe.layernorm(s, x, s.accept(np.zeros(64)), s.accept(np.zeros(64)), 1e-12, at)

    assert rounds(attend, (1, 2, t, t)) == softmax
    assert rounds(normalise, (5, 64)) == layernorm


def test_exact() -> None:
    s, rng = PlainSession(), np.random.default_rng(0)
    x, scores, values = rng.normal(size=(3, 8)), rng.normal(size=(2, 1, 4, 4)), rng.normal(size=(2, 1, 4, 3))
    gamma, beta = rng.normal(size=8), rng.normal(size=8)
    mask = np.array([[True] * 4, [True, True, False, False]])
    np.testing.assert_array_equal(EXACT.gelu(s, s.accept(x), {}).data, gelu_exact(x))
    np.testing.assert_array_equal(EXACT.tanh(s, s.accept(x), {}).data, np.tanh(x))
    got = EXACT.softmax(s, s.accept(scores), s.accept(values), mask, {}).data
    np.testing.assert_allclose(got, softmax_exact(scores, mask) @ values)
    got = EXACT.layernorm(s, s.accept(x), s.accept(gamma), s.accept(beta), 1e-5, {}).data
    np.testing.assert_allclose(got, layernorm_exact(x, 1e-5) * gamma + beta)


def test_exact_runs_in_the_twin_only() -> None:
    s = PlanRecorder()
    x, v, mask = s.accept(np.zeros((1, 1, 2, 2))), s.accept(np.zeros((1, 1, 2, 2))), np.ones((1, 2), dtype=bool)
    for refuse in (
        lambda: EXACT.gelu(s, x, {}), lambda: EXACT.tanh(s, x, {}), lambda: EXACT.softmax(s, x, v, mask, {}),
        lambda: EXACT.layernorm(s, x, x, x, 1e-5, {}),
    ):
        with pytest.raises(SettingsError, match="only in the float64 twin, got a PlanRecorder"):
            refuse()
