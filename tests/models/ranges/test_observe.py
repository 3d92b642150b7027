"""Observed recipes: what an observer sees, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np
import pytest

from secformer.models.ranges.observe import observed
from secformer.models.ranges.profile import Probe, probe
from secformer.mpc.errors import SettingsError
from secformer.mpc.sessions.plain import PlainSession
from secformer.protocols.quantities import (
    EXP_SUM,
    GATE,
    INPUT,
    LOG_MEAN,
    MAXIMUM,
    SCORE,
    SPREAD,
    VALUE,
    Quantity,
    needs,
    real_scores,
)
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import EXACT, FAITHFUL, Function, Recipe

SOFTMAX = VALUE, SCORE, SPREAD, MAXIMUM, EXP_SUM, LOG_MEAN  # what the faithful one needs


def test_observing_changes_nothing_else() -> None:
    s, rng = PlainSession(), np.random.default_rng(0)
    x, v = s.accept(rng.normal(size=(2, 1, 4, 4))), s.accept(rng.normal(size=(2, 1, 4, 3)))
    mask, at = np.array([[True] * 4, [True, True, False, False]]), Probe(1.25)
    watched = observed(FAITHFUL, np, probe)
    got = watched.softmax(s, x, v, mask, at)
    np.testing.assert_array_equal(got.data, FAITHFUL.softmax(s, x, v, mask, at.widened).data)
    assert set(at) == {q.name for q in SOFTMAX} and watched.needs == FAITHFUL.needs
    assert watched.faithful and watched.softmax.__doc__ == FAITHFUL.softmax.__doc__
    for q in SOFTMAX:
        assert at.widened[q.name] == q.widening(at[q.name], 1.25)
    with pytest.raises(SettingsError, match="sites that are a Probe, got a dict"):
        watched.gelu(s, x, {})


class Watcher:
    """Notes what it is shown, and answers with a site of its own."""

    def __init__(self, answer: Site):
        self.answer = answer
        self.met: list[tuple[Site, tuple[str, ...], tuple[np.ndarray, ...]]] = []

    def __call__(self, at: Site, quantities: tuple[Quantity, ...], *inputs: np.ndarray) -> Site:
        self.met.append((at, tuple(q.name for q in quantities), inputs))
        return self.answer


def told(recipe: Recipe, seen: list[Site]) -> Recipe:
    """The recipe's declarations on functions that note the site at which they run."""
    def declared(name: str) -> Any:
        @needs(*recipe.needs[name])
        def function(s: Any, x: Any, *rest: Any) -> Any:
            seen.append(rest[-1])
            return x

        return function

    return replace(recipe, name="told", **{name: declared(name) for name in recipe.functions})


HERE, THERE = {"input": Range(-1.0, 1.0)}, {"input": Range(-2.0, 2.0)}


def test_functions_run_where_the_observer_says() -> None:
    s, seen, watcher = PlainSession(), list[Site](), Watcher(THERE)
    watched = observed(told(FAITHFUL, seen), np, watcher)
    x, gamma = s.accept(np.ones((2, 3))), s.accept(np.ones(3))
    scores, mask = s.accept(np.zeros((1, 1, 2, 2))), np.ones((1, 2), dtype=bool)
    watched.gelu(s, x, HERE)
    watched.tanh(s, x, HERE)
    watched.layernorm(s, x, gamma, gamma, 1e-12, HERE)
    watched.softmax(s, scores, scores, mask, HERE)
    assert all(site is THERE for site in seen) and len(seen) == 4
    assert [(at is HERE, names) for at, names, _ in watcher.met] == [
        (True, ("input",)), (True, ("input",)), (True, ("input", "gain", "variance", "row_sum")),
        (True, tuple(q.name for q in SOFTMAX))]


def test_the_observer_sees_what_quantities_are_computed_from() -> None:
    """Of attention the real scores: columns of padding repeat a real one."""
    s, rng, watcher = PlainSession(), np.random.default_rng(1), Watcher({})
    watched = observed(told(EXACT, []), np, watcher)
    x, gamma, beta = (s.accept(rng.normal(size=shape)) for shape in ((2, 3), (3,), (3,)))
    scores, values = s.accept(rng.normal(size=(2, 1, 4, 4))), s.accept(rng.normal(size=(2, 1, 4, 3)))
    mask = np.array([[True] * 4, [True, True, False, False]])
    watched.gelu(s, x, HERE)
    watched.layernorm(s, x, gamma, beta, 1e-12, HERE)
    watched.softmax(s, scores, values, mask, HERE)
    (_, _, gelu), (_, _, norm), (_, _, attention) = watcher.met
    assert [i is v.data for i, v in zip((*gelu, *norm), (x, x, gamma, beta), strict=True)] == [True] * 4
    shown, shown_values, real = attention
    assert real.shape == (2, 1, 1, 4) and shown_values is values.data
    np.testing.assert_array_equal(real[:, 0, 0], mask)
    np.testing.assert_array_equal(shown, real_scores(np, scores.data, real))
    np.testing.assert_array_equal(shown[0], scores.data[0])
    assert not np.array_equal(shown[1], scores.data[1])


def test_functions_that_need_nothing_stay_as_they_are() -> None:
    watcher = Watcher({})
    plain = [needs()(wraps(f)(lambda *given: given)) for f in (FAITHFUL.gelu, FAITHFUL.softmax, FAITHFUL.tanh)]
    gelu, softmax, tanh = plain
    quiet = observed(replace(FAITHFUL, gelu=gelu, softmax=softmax, tanh=tanh), np, watcher)
    assert quiet.gelu is gelu and quiet.softmax is softmax and quiet.tanh is tanh
    assert quiet.layernorm is not FAITHFUL.layernorm


def test_masks_of_rows_and_norms_without_beta() -> None:
    s, rng, watcher = PlainSession(), np.random.default_rng(1), Watcher({})
    watched = observed(told(EXACT, []), np, watcher)
    scores, values = s.accept(rng.normal(size=(2, 3, 4, 5))), s.accept(rng.normal(size=(2, 3, 5, 2)))
    mask = np.tri(4, 5, 1, dtype=bool)[None, None]
    watched.softmax(s, scores, values, mask, HERE)
    watched.layernorm(s, s.accept(np.ones((2, 3))), s.accept(np.full(3, 2.0)), 0.0, 1e-12, HERE)
    (_, _, (shown, _, real)), (_, _, (_, gamma, beta)) = watcher.met
    assert real is mask and beta == 0.0 and (gamma == 2.0).all()
    np.testing.assert_array_equal(shown, real_scores(np, scores.data, mask))
    largest = np.where(mask, scores.data, -np.inf).max(axis=-1, keepdims=True)
    np.testing.assert_array_equal(np.where(mask, largest, shown), np.broadcast_to(largest, shown.shape))


def test_functions_of_several_operands() -> None:
    """Of shares the observer sees the values; what is public beside them goes by."""
    s, watcher = PlainSession(), Watcher(THERE)
    x, gate, positions = s.accept(np.ones(2)), s.accept(np.full(2, 3.0)), np.arange(2)

    @needs(INPUT, GATE)
    def protocol(s: Any, *given: Any) -> Any:
        return given

    met = observed(FAITHFUL, np, watcher).of(Function("own", protocol, protocol))(s, x, positions, gate, HERE)
    assert [a is b for a, b in zip(met, (x, positions, gate, THERE), strict=True)] == [True] * 4
    observed(EXACT, np, watcher).of(Function("own", protocol, lambda *given: given))(s, x, positions, gate, HERE)
    (_, names, inputs), (_, exactly, _) = watcher.met
    assert exactly == names  # whoever measures with exact functions measures for protocols
    assert names == ("input", "gate") and inputs[0] is x.data and inputs[1] is gate.data and len(inputs) == 2


def test_asked_quantities_may_be_others_than_the_recipes() -> None:
    """Exact functions declare nothing of their own: a profile asks for what the recipe on shares needs."""
    s, watcher = PlainSession(), Watcher({})
    gelu = needs(INPUT, Quantity("own", lambda xp, x: x))(wraps(FAITHFUL.gelu)(lambda *given: given))
    observed(EXACT, np, watcher, asking=replace(FAITHFUL, gelu=gelu)).gelu(s, s.accept(np.ones(2)), HERE)
    assert [names for _, names, _ in watcher.met] == [("input", "own")]
