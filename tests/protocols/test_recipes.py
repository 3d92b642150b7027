"""Recipes are frozen values; what their functions declare holds; their rounds are counted; the exact one stays in the
twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from secformer.mpc.errors import SettingsError
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder
from secformer.mpc.shares import Share
from secformer.protocols.activations import relu
from secformer.protocols.fidelity import faithful, is_faithful, student, student_of
from secformer.protocols.gelu import gelu_exact
from secformer.protocols.layernorm import layernorm_exact
from secformer.protocols.quantities import ATTENTION, INPUT, KNOWN, NORM, SCORE, Quantity, needs
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
    "input": Range(-12.0, 12.0), "gain": Range(2.0, 2.0), "value": Range(-8.0, 8.0),
    "score": Range(-20.0, 20.0), "spread": Range(-30.0, 0.0),
    "exp_sum": Range(1.0, 100.0), "quad_sum": Range(100.0, 9000.0), "relu_sum": Range(1.0, 500.0),
    "variance": Range(2.5, 100.0), "row_sum": Range(-90.0, 90.0),
}
ON_SHARES = [r for r in RECIPES.values() if r is not EXACT]
by_name = pytest.mark.parametrize("recipe", ON_SHARES, ids=lambda r: r.name)


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


# ---- what functions declare ------------------------------------------------------------------------------------------


class Asked(Mapping[str, Range]):
    """A call site that remembers what it was asked for."""

    def __init__(self, ranges: Mapping[str, Range]):
        self.ranges = ranges
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> Range:
        self.asked.add(name)
        return self.ranges[name]

    def __contains__(self, name: object) -> bool:
        self.asked.add(str(name))
        return name in self.ranges

    def __iter__(self) -> Iterator[str]:
        return iter(self.ranges)

    def __len__(self) -> int:
        return len(self.ranges)


WIDE: Site = {  # beyond what the functions evaluate as it is: inputs are cut, sums take the longer ways
    "input": Range(-500.0, 300.0), "gain": Range(256.0, 256.0), "value": Range(-300.0, 500.0),
    "score": Range(-400.0, 400.0), "spread": Range(-800.0, 0.0),
    "exp_sum": Range(1.0, 300.0), "quad_sum": Range(20.0, 9000.0), "relu_sum": Range(0.0, 500.0),
    "variance": Range(0.5, 4000.0),
}
NARROW: Site = {
    "input": Range(-1.0, 1.0), "gain": Range(0.5, 0.5), "value": Range(-0.1, 0.1),
    "score": Range(-2.0, 2.0), "spread": Range(-3.0, 0.0), "exp_sum": Range(1.0, 4.0),
    "quad_sum": Range(50.0, 100.0), "relu_sum": Range(1.0, 4.0), "variance": Range(0.5, 1.0),
}


def asked(recipe: Recipe, name: str, ranges: Site, padded: bool) -> set[str]:
    """The quantities that one of a recipe's functions asks for, while its plan is recorded."""
    at, mask = Asked(ranges), np.array([[True] * 6, [True] * 3 + [not padded] * 3])
    function = recipe.functions[name]

    def program(s: PlanRecorder) -> None:
        if name == "softmax":
            function(s, s.accept(np.zeros((2, 1, 6, 6)), frac=32), s.accept(np.zeros((2, 1, 6, 4))), mask, at)
        elif name == "layernorm":
            gamma, beta = s.accept(np.zeros(8)), s.accept(np.zeros(8))
            function(s, s.accept(np.zeros((3, 8)), frac=32), gamma, beta, 1e-12, at)
        else:
            function(s, s.accept(np.zeros(5), frac=32), at)

    PlanRecorder().record(program)
    return at.asked


@by_name
@pytest.mark.parametrize("name", ["gelu", "softmax", "layernorm", "tanh"])
def test_functions_need_what_they_declare(recipe: Recipe, name: str) -> None:
    """They ask their call site for nothing else, and for all of it, whatever the domain."""
    declared = {q.name for q in recipe.needs[name]}
    for ranges in (SITE, WIDE, NARROW):
        for padded in (False, True):
            assert asked(recipe, name, ranges, padded) == declared


@by_name
def test_functions_declare_known_quantities_themselves(recipe: Recipe) -> None:
    for name, function in recipe.functions.items():
        assert recipe.needs[name] == function.__needs__, "an explicit declaration, not the default"  # type: ignore
        assert all(KNOWN[q.name] is q for q in recipe.needs[name])


def test_functions_that_declare_nothing_get_the_defaults() -> None:
    def mine(*operands: Any) -> Share:
        raise NotImplementedError

    recipe = Recipe("mine", mine, mine, mine, mine)
    assert dict(recipe.needs) == {"gelu": (INPUT,), "softmax": ATTENTION, "layernorm": NORM, "tanh": (INPUT,)}
    assert recipe.needs == EXACT.needs, "a profile measured for exact functions serves whatever is near them"
    own = Quantity("own", lambda xp, scores, values, real: values)
    assert replace(recipe, softmax=needs(SCORE, own)(mine)).needs["softmax"] == (SCORE, own)
    assert recipe.ordinary and not recipe.faithful


def off_exact(recipe: Recipe) -> float:
    """How far a recipe's GeLU and softmax are from exact ones, on a few values in the twin."""
    s, x = PlainSession(), np.linspace(-4.0, 4.0, 257)
    at = SITE | {"input": Range(-4.0, 4.0), "score": Range(-8.0, 8.0), "spread": Range(-9.0, 0.0),
                 "exp_sum": Range(1.0, 8.0), "quad_sum": Range(20.0, 700.0), "relu_sum": Range(0.0, 30.0)}
    gelu = recipe.gelu(s, s.accept(x), at).data
    scores, mask = 4.0 * np.sin(np.arange(64.0) ** 2).reshape(1, 1, 8, 8), np.ones((1, 8), dtype=bool)
    weights = recipe.softmax(s, s.accept(scores), s.accept(np.eye(8)[None, None]), mask, at).data
    return float(max(np.abs(gelu - gelu_exact(x)).max(), np.abs(weights - softmax_exact(scores, mask)).max()))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda r: r.name)
def test_what_a_recipe_says_of_itself_agrees_with_the_numbers(recipe: Recipe) -> None:
    assert recipe.ordinary == (off_exact(recipe) <= 0.05)
    assert recipe.faithful == (off_exact(recipe) <= 2e-4)


@pytest.mark.parametrize("recipe", [r for r in RECIPES.values() if r.faithful], ids=lambda r: r.name)
def test_all_functions_of_a_faithful_recipe_are(recipe: Recipe) -> None:
    s, rng = PlainSession(), np.random.default_rng(0)
    x = np.linspace(-12.0, 12.0, 1001)
    assert np.abs(recipe.tanh(s, s.accept(x), SITE).data - np.tanh(x)).max() <= 2e-4
    assert np.abs(recipe.gelu(s, s.accept(x), SITE).data - gelu_exact(x)).max() <= 2e-4
    rows = layernorm_exact(rng.normal(size=(40, 64)), 0.0) * np.sqrt(np.geomspace(2.5, 100.0, 40))[:, None]
    found = recipe.layernorm(s, s.accept(rows), s.accept(np.ones(64)), s.accept(np.zeros(64)), 1e-12, SITE).data
    assert np.abs(found / layernorm_exact(rows, 1e-12) - 1.0).max() <= 2e-4


def test_what_recipes_were_trained_for() -> None:
    assert {r.name: r.trained_for for r in RECIPES.values() if not r.ordinary} == {
        "secformer": ("2Quad",), "mpcformer": ("Quad", "2Quad"), "mpcformer_2relu": ("Quad", "2ReLU")}
    assert {r.name: r.constants for r in RECIPES.values() if r.constants} == {
        "secformer": {"quad_shift": 5.0}, "mpcformer": {"quad": [0.125, 0.25, 0.5], "quad_shift": 5.0},
        "mpcformer_2relu": {"quad": [0.125, 0.25, 0.5]}}
    assert [r.name for r in RECIPES.values() if r.faithful] == ["faithful", "exact"]


def test_a_variant_says_of_itself_what_its_functions_say() -> None:
    assert not replace(FAITHFUL, softmax=SECFORMER.softmax).ordinary
    assert replace(SECFORMER, softmax=FAITHFUL.softmax).ordinary
    assert not replace(FAITHFUL, gelu=relu).faithful and replace(FAITHFUL, name="mine").faithful

    @student("own", slope=2.0)
    def own(s: Any, x: Share, at: Site) -> Share:
        return x * 2

    mine = replace(FAITHFUL, name="mine", tanh=own)
    assert (mine.trained_for, mine.constants, mine.ordinary) == (("own",), {"slope": 2.0}, False)
    assert not is_faithful(own) and student_of(FAITHFUL.gelu) is None
    with pytest.raises(TypeError):
        student_of(own).constants["slope"] = 3.0  # type: ignore[index, union-attr]
    assert is_faithful(faithful(lambda s, x, at: x))


# ---- prices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe, gelu, tanh, softmax, layernorm", [
    (FAITHFUL, 2, 2, 19, 4), (SECFORMER, 7, 2, 17, 25), (MPCFORMER, 2, 16, 23, 19), (MPCFORMER_2RELU, 2, 16, 23, 19),
    (PUMA, 8, 2, 34, 10), (CRYPTEN, 19, 16, 44, 19),
])
def test_rounds(recipe: Recipe, gelu: int, tanh: int, softmax: int, layernorm: int) -> None:
    """As the docstrings say, with the settling of the result; T = 128, a tree's maximum; the papers' iterations, and
    words that have no room for SecFormer's deflation."""
    at, t = SITE, 128
    assert price(lambda s, x: recipe.gelu(s, x, at), (9,))[0] == gelu
    assert price(lambda s, x: recipe.tanh(s, x, at), (9,))[0] == tanh
    assert price(attention(recipe, t, 8), (1, 2, t, t))[0] == softmax
    assert price(normalisation(recipe, 64), (5, 64))[0] == layernorm


@pytest.mark.parametrize("recipe, gelu, softmax", [
    (SECFORMER, 21, 24), (MPCFORMER, 6, 24), (MPCFORMER_2RELU, 6, 20), (PUMA, 31, 42), (CRYPTEN, 68, 46),
])
def test_bytes(recipe: Recipe, gelu: int, softmax: int) -> None:
    """As the docstrings say, with 3 or 4 bytes for settling a pending result; T = 128 and D = 64, so that values are
    half as many as scores. LayerNorm costs the same 10 bytes in every recipe, nearly all of it outside of the root."""
    at, t = SITE, 128
    assert price(lambda s, x: recipe.gelu(s, x, at), (100,))[1] / 100 == pytest.approx(gelu, abs=1)
    assert price(attention(recipe, t, 64), (1, 2, t, t))[1] / (2 * t * t) == pytest.approx(softmax, abs=1)
    assert 10.0 < price(normalisation(recipe, 768), (t, 768))[1] / (t * 768) < 10.5


def attention(recipe: Recipe, t: int, d: int) -> Callable[..., Share]:
    mask = np.ones((1, t), dtype=bool)
    return lambda s, scores: recipe.softmax(s, scores, s.accept(np.zeros((1, 2, t, d))), mask, SITE)


def normalisation(recipe: Recipe, c: int) -> Callable[..., Share]:
    return lambda s, x: recipe.layernorm(s, x, s.accept(np.zeros(c)), s.accept(np.zeros(c)), 1e-12, SITE)


# ---- the exact recipe ------------------------------------------------------------------------------------------------


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
        with pytest.raises(SettingsError, match="in the float64 twin only; this is a PlanRecorder"):
            refuse()
