"""Recipes are frozen values; their rounds are counted; the exact one stays in the twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from secformer.mpc.errors import SettingsError
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder
from secformer.mpc.shares import Share
from secformer.protocols.gelu import gelu_exact
from secformer.protocols.layernorm import layernorm_exact
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import (
    CRYPTEN,
    EXACT,
    FAITHFUL,
    MPCFORMER,
    MPCFORMER_2RELU,
    PUMA,
    RECIPES,
    SECFORMER,
    Recipe,
    recipe_named,
)
from secformer.protocols.softmax import softmax_exact

SITE: Site = {
    "input": Range(-12.0, 12.0), "score": Range(-20.0, 20.0), "spread": Range(-30.0, 0.0),
    "exp_sum": Range(1.0, 100.0), "quad_sum": Range(100.0, 9000.0), "relu_sum": Range(1.0, 500.0),
    "variance": Range(2.5, 100.0),
}


def price(program: Callable[..., Any], *shapes: tuple[int, ...]) -> tuple[int, float]:
    """Rounds, and bytes that a party sends, of a program that is given pending products of those shapes and settles its
    result."""

    def whole(s: PlanRecorder, run: bool) -> None:
        shares = [s.mul(s.accept(np.zeros(shape)), s.accept(np.zeros(shape))) for shape in shapes]
        if run:
            s.settle(program(s, *shares))

    full, inputs = (PlanRecorder().record(whole, run) for run in (True, False))
    return full.rounds - inputs.rounds, (full.bytes - inputs.bytes) / 2


def test_names() -> None:
    assert list(RECIPES) == ["secformer", "faithful", "mpcformer", "mpcformer_2relu", "puma", "crypten", "exact"]
    for name, recipe in RECIPES.items():
        assert recipe_named(name) is recipe and recipe.name == name
    with pytest.raises(SettingsError, match=r"secformer, faithful, .*crypten, exact.*'fastest'"):
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


@pytest.mark.parametrize("recipe, gelu, tanh, softmax, layernorm", [
    (FAITHFUL, 2, 2, 21, 6), (SECFORMER, 9, 2, 33, 38), (MPCFORMER, 3, 29, 45, 33), (MPCFORMER_2RELU, 3, 29, 44, 33),
    (PUMA, 12, 2, 45, 16), (CRYPTEN, 34, 29, 73, 33),
])
def test_rounds(recipe: Recipe, gelu: int, tanh: int, softmax: int, layernorm: int) -> None:
    """As the docstrings say, with the settling of the result; T = 128; the papers' iterations."""
    at, t = SITE, 128
    assert price(lambda s, x: recipe.gelu(s, x, at), (9,))[0] == gelu
    assert price(lambda s, x: recipe.tanh(s, x, at), (9,))[0] == tanh
    assert price(attention(recipe, t, 8), (1, 2, t, t))[0] == softmax
    assert price(normalisation(recipe, 64), (5, 64))[0] == layernorm


@pytest.mark.parametrize("recipe, gelu, softmax", [
    (MPCFORMER, 9, 35), (MPCFORMER_2RELU, 9, 25), (PUMA, 72, 76), (CRYPTEN, 167, 91),
])
def test_bytes(recipe: Recipe, gelu: int, softmax: int) -> None:
    """As the docstrings say, with 4 bytes for settling a pending result; T = 128 and D = 64, so that values are half as
    many as scores. LayerNorm costs the same 28 to 29 bytes in every recipe, nearly all of it outside of the root."""
    at, t = SITE, 128
    assert price(lambda s, x: recipe.gelu(s, x, at), (100,))[1] / 100 == pytest.approx(gelu, abs=7)
    assert price(attention(recipe, t, 64), (1, 2, t, t))[1] / (2 * t * t) == pytest.approx(softmax, abs=5)
    assert 28.0 < price(normalisation(recipe, 768), (t, 768))[1] / (t * 768) < 30.0


def attention(recipe: Recipe, t: int, d: int) -> Callable[..., Share]:
    mask = np.ones((1, t), dtype=bool)
    return lambda s, scores: recipe.softmax(s, scores, s.accept(np.zeros((1, 2, t, d))), mask, SITE)


def normalisation(recipe: Recipe, c: int) -> Callable[..., Share]:
    return lambda s, x: recipe.layernorm(s, x, s.accept(np.zeros(c)), s.accept(np.zeros(c)), 1e-12, SITE)


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
