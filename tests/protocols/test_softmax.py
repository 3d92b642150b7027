"""Attention's softmax @ values: exact and 2Quad, masked, single tokens, wide and flat rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples
from protocols_lab import PENDING, Run

from secformer.mpc.errors import RangeError, ShapeError
from secformer.mpc.fixed import decode, encode
from secformer.mpc.guarding import Guarded
from secformer.mpc.session import CLIENT
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World
from secformer.protocols.quantities import ATTENTION, QUAD_SHIFT, real_scores
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import EXACT, RECIPES, Recipe
from secformer.protocols.softmax import real_columns, softmax_2quad, softmax_exact, softmax_series, spread_out

Case = tuple[np.ndarray, np.ndarray, np.ndarray, Site]


def case(seed: int, b: int, h: int, t: int, d: int, spread: float, shift: float = 0.0) -> Case:
    """Scores, values, a mask whose first text is full, and the ranges over real columns."""
    rng = np.random.default_rng(seed)
    scores, values = shift + spread * rng.normal(size=(b, h, t, t)), rng.normal(size=(b, h, t, d))
    mask = np.arange(t) < np.concatenate([[t], rng.integers(1, t + 1, size=b - 1)])[:, None]
    real = [scores[i][..., mask[i]] for i in range(b)]
    below = [r - r.max(axis=-1, keepdims=True) for r in real]
    sums = np.concatenate([np.exp(x).sum(axis=-1).reshape(-1) for x in below])
    quads = np.concatenate([((r + QUAD_SHIFT) ** 2).sum(axis=-1).reshape(-1) for r in real])
    at = {
        "value": Range(values.min(), values.max()),
        "score": Range(min(r.min() for r in real), max(r.max() for r in real)),
        "spread": Range(min(x.min() for x in below), 0.0),
        "exp_sum": Range(sums.min(), sums.max()),
        "quad_sum": Range(quads.min(), quads.max()),
    }
    return scores, values, mask, at


def program(protocol: Callable[..., Share], mask: np.ndarray, at: Site) -> Callable[..., Share]:
    return lambda s, scores, values: protocol(s, scores, values, mask, at)


def quad(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    p = (scores + QUAD_SHIFT) ** 2 * spread_out(mask)
    return np.asarray(p / p.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("b, h, t, d, spread, shift", [
    (1, 1, 1, 1, 1.0, 0.0), (2, 3, 7, 4, 0.1, 0.0), (3, 2, 33, 8, 5.0, -20.0), (1, 2, 128, 4, 20.0, 30.0),
    (2, 1, 200, 4, 1.0, 0.0), (1, 1, 12, 3, 400.0, 0.0),
])
def test_softmax_series(run: Run, b: int, h: int, t: int, d: int, spread: float, shift: float) -> None:
    scores, values, mask, at = case(1, b, h, t, d, spread, shift)
    got = run(program(softmax_series, mask, at), scores, values, fracs=[PENDING, 16])
    assert np.abs(got - softmax_exact(scores, mask) @ values).max() <= 1e-3


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 40), st.integers(1, 5), st.floats(0.01, 40.0),
       st.floats(-20.0, 20.0), st.integers(0, 99))
@examples(25)
def test_softmax_series_any_shape(
    twin: Run, b: int, h: int, t: int, d: int, spread: float, shift: float, seed: int
) -> None:
    scores, values, mask, at = case(seed, b, h, t, d, spread, shift)
    got = twin(program(softmax_series, mask, at), scores, values, fracs=[PENDING, 16])
    assert np.abs(got - softmax_exact(scores, mask) @ values).max() <= 5e-4


def test_padding_has_no_say(run: Run) -> None:
    """Whatever stands in padded columns: other scores there, the same answer."""
    scores, values, mask, at = case(3, 2, 2, 9, 4, 2.0)
    mask[1] = np.arange(9) < 4
    garbage = np.where(mask[:, None, None, :], scores, 7.5)
    for protocol, exact in ((softmax_series, softmax_exact), (softmax_2quad, quad)):
        at = {**at, "quad_sum": Range(1.0, 2000.0)}
        got = run(program(protocol, mask, at), garbage, values, fracs=[PENDING, 16])
        assert np.abs(got - exact(scores, mask) @ values).max() <= 1e-3


@pytest.mark.parametrize("row", [np.zeros(16), np.eye(16)[3] * 30.0, np.linspace(-30.0, 30.0, 16)])
def test_flat_and_peaked_rows(run: Run, row: np.ndarray) -> None:
    scores = np.broadcast_to(row, (1, 1, 16, 16)).copy()
    values = np.random.default_rng(0).normal(size=(1, 1, 16, 4))
    mask = np.ones((1, 16), dtype=bool)
    at = {"value": Range(-5.0, 5.0), "score": Range(-30.0, 30.0), "spread": Range(-60.0, 0.0),
          "exp_sum": Range(1.0, 16.0)}
    got = run(program(softmax_series, mask, at), scores, values, fracs=[PENDING, 16])
    assert np.abs(got - softmax_exact(scores, mask) @ values).max() <= 3e-4


@pytest.mark.parametrize("b, h, t, d, spread, shift", [
    (1, 1, 1, 1, 1.0, 0.0), (2, 2, 9, 4, 1.0, 0.0), (2, 1, 128, 4, 1.0, 0.0), (1, 1, 40, 4, 15.0, 5.0),
])
def test_softmax_2quad(run: Run, b: int, h: int, t: int, d: int, spread: float, shift: float) -> None:
    scores, values, mask, at = case(2, b, h, t, d, spread, shift)
    got = run(program(softmax_2quad, mask, at), scores, values, fracs=[PENDING, 16])
    assert np.abs(got - quad(scores, mask) @ values).max() <= 1e-3


# How far a recipe's weighted means are from those of the function that it computes, on the values below.
NEAR = {"faithful": 3e-4, "secformer": 2e-3, "mpcformer": 5e-3, "mpcformer_2relu": 1e-2, "puma": 6e-2, "crypten": 2e-2,
        "exact": 1e-12}


def relu_rows(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    real = spread_out(mask)
    w = (np.maximum(scores, 0.0) + 2.0**-6 / real.sum(axis=-1, keepdims=True)) * real
    return np.asarray(w / w.sum(axis=-1, keepdims=True))


def formula(recipe: Recipe) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    if recipe.name == "mpcformer_2relu":
        return relu_rows
    return quad if recipe.trained_for else softmax_exact


def site(scores: np.ndarray, values: np.ndarray, mask: np.ndarray) -> Site:
    """The ranges of every quantity over real columns."""
    real = spread_out(mask)
    given = real_scores(np, scores, real), values, real
    return {q.name: Range(float(v.min()), float(v.max())) for q in ATTENTION for v in [q.of(np, *given)]}


def masks(kind: str, b: int, h: int, q: int, t: int) -> np.ndarray:
    """Masks of four axes without an empty row: a triangle for all, and one for each text and head."""
    if kind == "triangle":
        return np.tri(q, t, dtype=bool)[None, None]
    drawn = np.random.default_rng(7).random((b, h, q, t)) < 0.4
    drawn[..., t // 2] = True
    return drawn


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("kind, q, t", [("triangle", 9, 9), ("each", 4, 11)])
def test_masks_of_rows(run: Run, recipe: Recipe, kind: str, q: int, t: int) -> None:
    """Scores need not be square, and what stands where the mask is False has no say."""
    if recipe is EXACT and "shares" in run.__name__:
        pytest.skip("exact functions are the twin's")
    rng, b, h = np.random.default_rng(3), 2, 3
    scores, values = rng.normal(1.0, 1.5, (b, h, q, t)), rng.normal(size=(b, h, t, 4))
    mask = masks(kind, b, h, q, t)
    at = site(scores, values, mask)
    garbage = np.where(np.broadcast_to(mask, scores.shape), scores, rng.uniform(-7.0, 7.0, scores.shape))
    got = run(program(recipe.softmax, mask, at), garbage, values, fracs=[PENDING, 16])
    assert got.shape == (b, h, q, 4)
    assert np.abs(got - formula(recipe)(scores, mask) @ values).max() <= NEAR[recipe.name]


def test_a_mask_of_texts_is_one_of_rows() -> None:
    """The same answer, to the last bit, whether the mask has two axes or four."""
    s = PlainSession()
    scores, values, mask, at = case(8, 3, 2, 9, 4, 2.0)
    assert not mask.all()
    two, four = (s.values(softmax_series(s, s.accept(scores, frac=PENDING), s.accept(values), m, at))
                 for m in (mask, np.broadcast_to(mask[:, None, None, :], scores.shape)))
    np.testing.assert_array_equal(two, four)


def test_a_full_mask_costs_nothing() -> None:
    s = PlainSession()
    scores, values, mask, _ = case(8, 2, 2, 5, 4, 2.0)
    x, v = s.accept(scores), s.accept(values)
    assert real_columns(x, v, np.ones_like(mask)) is None
    assert real_columns(x, v, np.ones((1, 1, 5, 5), bool)) is None


# ---- without a maximum, and what each way costs ---------------------------------------------------------------------

LOGS = Range(4.0, 6.9)  # nearly as long as may be


def ends_of_logs(t: int, logs: Range, spread: float = 1.0, queries: int = 16) -> tuple[np.ndarray, np.ndarray, Site]:
    """Scores (1, 1, Q, T), half of whose rows have a log-mean-exp at the low end and half at the high one, values, and
    ranges as tight as they may be."""
    rng = np.random.default_rng(t)
    scores, values = spread * rng.normal(size=(1, 1, queries, t)), rng.normal(size=(1, 1, t, 8))
    scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    scores += np.repeat([logs.low, logs.high], queries // 2)[:, None] + math.log(t)
    return scores, values, {**site(scores, values, np.ones((1, t), bool)), "log_mean": logs}


@pytest.mark.parametrize("t, spread", [(1, 1.0), (2, 3.0), (16, 1.0), (128, 0.1), (512, 1.0)])
def test_rows_at_both_ends_of_log_sums(run: Run, t: int, spread: float) -> None:
    """Rounding T weights counts most where their sum is least; the docstring's errors. Roundings are drawn anew in
    every run, hence the distance to the largest."""
    scores, values, at = ends_of_logs(t, LOGS, spread)
    got = run(program(softmax_series, np.ones((1, t), bool), at), scores, values, fracs=[PENDING, 16])
    wrong = np.abs(got - softmax_exact(scores, np.ones((1, t), bool)) @ values)[0, 0]
    assert np.sqrt(np.square(wrong[:8]).mean()) <= 1.6e-4
    assert wrong[:8].max() <= 7e-4 and wrong[8:].max() <= 1.5e-4


def test_masked_columns_without_a_maximum(run: Run) -> None:
    """Padding whose scores are far above all others', beside rows at the ends."""
    scores, values, at = ends_of_logs(12, LOGS)
    padded = np.concatenate([scores, np.full((1, 1, 16, 5), 90.0)], axis=-1)
    more = np.concatenate([values, np.full((1, 1, 5, 8), values.max())], axis=2)
    got = run(program(softmax_series, (np.arange(17) < 12)[None], at), padded, more, fracs=[PENDING, 16])
    assert np.abs(got - softmax_exact(scores, np.ones((1, 12), bool)) @ values).max() <= 4e-4


@pytest.mark.parametrize("off", [-20.0, -3.0, -0.7, 0.7, 3.0, 20.0, 200.0])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_a_guard_marks_log_sums_outside_of_their_range(off: float, spread: float) -> None:
    """`off` beyond an end, to either side, in flat rows and others; the text beside it reaches both ends, and is not
    marked."""
    t = 24
    scores, values, at = ends_of_logs(t, LOGS, spread)
    scores = np.concatenate([scores] * 3)
    scores[1, 0, 0 if off < 0.0 else -1] += off
    mask = np.ones((3, t), dtype=bool)

    def guarded(s: Any, x: Any, v: Any) -> Any:
        with s.guarding({3: np.arange(3)}, 3, Guarded(apart=True)) as guard:
            softmax_series(s, s.accept(x, frac=PENDING, width=64), s.accept(v), mask, at)
        return guard.words

    words = [encode(v, f) for v, f in ((scores, PENDING), (np.concatenate([values] * 3), 16))]
    masks = [np.random.default_rng(1).integers(0, 2**64, size=w.shape, dtype=np.uint64) for w in words]
    outcome = World().run(lambda s, given: guarded(s, *given), masks,
                          [w - m for w, m in zip(words, masks, strict=True)])
    marked = ((outcome.results[0] + outcome.results[1]) != 0).any(axis=1)
    assert marked.tolist() == [False, True, False]


SCORES = {"value": Range(-4.0, 4.0), "score": Range(-12.0, 13.0), "spread": Range(-24.0, 0.0),
          "exp_sum": Range(1.0, 20.0)}
WAYS = {
    "log_mean": {**SCORES, "log_mean": Range(10.1, 13.0), "maximum": Range(2.0, 12.0)},
    "maximum": {**SCORES, "log_mean": Range(2.0, 13.0), "maximum": Range(2.0, 3.5)},
    "thresholds": {**SCORES, "log_mean": Range(2.0, 13.0), "maximum": Range(2.0, 12.0)},
    "tree": SCORES,
    "wide": {**SCORES, "log_mean": Range(2.0, 13.0), "maximum": Range(2.0, 12.0), "exp_sum": Range(1.0, 400.0)},
}


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("way, t, rounds, score, value", [
    ("log_mean", 8, 4, 12, 9), ("log_mean", 128, 4, 12, 9), ("log_mean", 512, 4, 12, 9),
    ("maximum", 128, 4, 12, 10), ("maximum", 512, 4, 12, 10),
    ("thresholds", 8, 8, 14, 10), ("thresholds", 128, 8, 14, 10), ("thresholds", 512, 8, 14, 10),
    ("tree", 8, 10, 14, 9), ("tree", 128, 18, 14, 10), ("wide", 128, 9, 15, 11), ("wide", 512, 13, 15, 11),
])
def test_prices(way: str, t: int, rounds: int, score: int, value: int, guarded: bool) -> None:
    """The docstring's, by what a plan sends for T scores in each of T rows, and for twice as many values. A guard's
    expectations take two rounds, and wider openings up to two bytes per score and one per value."""
    at = WAYS[way]

    def sent(d: int) -> tuple[int, float]:
        def whole(s: Any) -> Any:
            with s.guarding({1: np.arange(1)}, 1) if guarded else nullcontext():
                scores = s.accept(ghost((1, 1, t, t)), frac=PENDING, width=48)
                mean = softmax_series(s, scores, s.accept(ghost((1, 1, t, d))), np.ones((1, t), bool), at)
                assert mean.width == 64 and mean.frac > 16, "pending, in whole words"
        plan = PlanRecorder().record(whole)
        return plan.rounds, plan.bytes / 2

    (found, one), (_, two) = sent(32), sent(64)
    per_value = (two - one) / (32 * t)
    per_score = (one - 32 * t * per_value) / t**2
    assert found == rounds + 2 * guarded
    assert value <= per_value <= value + guarded
    assert score <= per_score + 0.5 and per_score <= score + (20 + 16 * guarded) / t + 2 * guarded


def test_softmax_exact_sums_to_one() -> None:
    scores, _, mask, _ = case(4, 3, 2, 11, 1, 300.0)
    weights = softmax_exact(scores, mask)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0)
    assert (weights[~np.broadcast_to(mask[:, None, None, :], weights.shape)] == 0.0).all()


@pytest.mark.parametrize("protocol", [softmax_series, softmax_2quad])
def test_refusals(protocol: Callable[..., Share]) -> None:
    s = PlainSession()
    scores, values, mask, at = case(5, 2, 1, 4, 2, 1.0)
    x, v = s.accept(scores), s.accept(values)
    with pytest.raises(ShapeError, match="mask"):
        protocol(s, x, v, mask[:, :3], at)
    with pytest.raises(ShapeError, match="at least one real token"):
        protocol(s, x, v, np.zeros_like(mask), at)
    with pytest.raises(ShapeError, match="scores"):
        protocol(s, x[0], v, mask, at)
    with pytest.raises(ShapeError, match="scores"):
        protocol(s, x[..., :3], v, mask[:, :3], at)
    for shape in ((2, 2, 4, 4), (1, 1, 3, 4), (3, 1, 4, 4), (2, 1, 4)):
        with pytest.raises(ShapeError, match="broadcasts to the scores"):
            protocol(s, x, v, np.ones(shape, bool), at)
    empty = np.tri(4, dtype=bool)[None, None].copy()
    empty[..., 2, :] = False
    with pytest.raises(ShapeError, match="at least one real column"):
        protocol(s, x, v, empty, at)
    with pytest.raises(RangeError, match="needs the range"):
        protocol(s, x, v, mask, {})


@pytest.mark.parametrize("low, high, message", [(0.0, 5.0, "must not sum to 0"), (-1.0, 5.0, "must be positive"),
                                                (math.nan, 5.0, "finite")])
def test_2quad_needs_positive_sums(low: float, high: float, message: str) -> None:
    s = PlainSession()
    scores, values, mask, at = case(6, 1, 1, 4, 2, 1.0)
    with pytest.raises(RangeError, match=message):
        softmax_2quad(s, s.accept(scores), s.accept(values), mask, {**at, "quad_sum": Range(low, high)})


@pytest.mark.parametrize(("low", "maximum", "logs"), [
    (-36.0, Range(0.0, 9.5), Range(0.0, 30.0)), (-6.0, Range(8.5, 9.5), Range(0.0, 30.0)),
    (-6.0, Range(0.0, 9.5), Range(7.0 - math.log(32), 9.9 - math.log(32)))], ids=["thresholds", "constant", "log-sum"])
def test_a_row_whose_maximum_is_a_little_too_large_is_right_or_marked(low: float, maximum: Range, logs: Range) -> None:
    """Its exponential may be wrong then, and leaves a sum like any other: two scores below it weigh as much."""
    t, above = 32, np.repeat([0.5, 1.0, 2.0, 3.0, 3.5, 4.5], 40)
    scores, values = np.full((len(above), 1, 1, t), low + 14.0), np.zeros((len(above), 1, t, 2))
    scores[..., 1:3], scores[..., 0], values[:, :, 0] = 9.2 if low < -30.0 else 8.6, (9.5 + above)[:, None, None], 3.9
    mask, at = np.ones((len(above), t), dtype=bool), {
        "value": Range(-4.0, 4.0), "score": Range(low, 9.5), "maximum": maximum, "log_mean": logs,
        "spread": Range(-40.0 if low < -30.0 else -9.0, 0.0), "exp_sum": Range(1.0, 16.0)}

    def program(s: Any, x: Any, v: Any) -> Any:
        with s.guarding({len(above): np.arange(len(above))}, len(above)) as guard:
            out = softmax_series(s, s.accept(x, frac=PENDING, width=64), s.accept(v), mask, at)
            return s.reveal(out, CLIENT), guard

    words = [encode(v, f) for v, f in ((scores, PENDING), (values, 16))]
    masks = [np.random.default_rng(i).integers(0, 2**64, size=w.shape, dtype=np.uint64) for i, w in enumerate(words)]
    outcome = World().run(lambda s, given: program(s, *given), masks,
                          [w - m for w, m in zip(words, masks, strict=True)])
    (mine, guard), (theirs, other) = outcome.results
    wrong = np.abs(decode(mine + theirs, 16) - softmax_exact(scores, mask) @ values).max(axis=(1, 2, 3)) > 1e-3
    marked = (guard.words + other.words != 0).any(axis=1)
    assert not (wrong & ~marked).any() and marked[above > 4.0].all()
