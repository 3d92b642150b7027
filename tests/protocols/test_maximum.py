"""Row maxima by thresholds and by a tree: never above the true maximum, and below it by less than delta; what each way
costs, and which is taken."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import Words, examples, run
from protocols_lab import PENDING, Run

from secformer.mpc.dealer.thresholds import Reached
from secformer.mpc.fixed import encode
from secformer.mpc.functions import HIGHEST
from secformer.mpc.guarding import Guarded
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.simulate import World
from secformer.protocols.exp import table
from secformer.protocols.maximum import (
    LEAST_DELTA,
    OCTET,
    WINDOW,
    Steps,
    by_thresholds,
    by_tree,
    cheapest,
    coarse_maximum,
    constant_below,
    deepest,
    row_maximum,
    steps,
)
from secformer.protocols.ranges import Range, Site
from secformer.protocols.softmax import softmax_exact, softmax_series

SMALL = 2.0**-15  # rounding of the shared scores


def rows(seed: int, low: float, top: float, high: float, *shape: int) -> np.ndarray:
    """Scores from `low` whose row maxima lie from `top` to `high`; the first two rows reach the very ends."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(low, top, size=(*shape[:-1], shape[-1]))
    maxima = rng.uniform(top, high, size=shape[:-1])
    maxima.reshape(-1)[:2] = (top, high)[: maxima.size]
    np.put_along_axis(x, rng.integers(0, shape[-1], size=(*shape[:-1], 1)), maxima[..., None], axis=-1)
    return x


def site(score: Range, maximum: Range, spread: float) -> Site:
    return {"score": score, "maximum": maximum, "spread": Range(-spread, 0.0)}


# ---- how near -------------------------------------------------------------------------------------------------------


@examples(30)
@given(
    low=st.floats(-20.0, -1.0), top=st.floats(-1.0, 5.0), more=st.floats(0.0, 14.0), t=st.integers(1, 40),
    seed=st.integers(0, 999),
)
def test_never_above_the_maximum_and_less_than_delta_below(
    low: float, top: float, more: float, t: int, seed: int
) -> None:
    x, score = rows(seed, low, top, top + more, 4, t), Range(low, top + more)
    found = steps(Range(top, top + more), score)
    assert found is not None and 0.0 < found.delta <= HIGHEST
    for program_run in ("twin", "shares"):
        if program_run == "twin":
            s = PlainSession()
            m = coarse_maximum(s, s.accept(x), found, score).data
        else:
            (m,), _ = run(lambda s, x: coarse_maximum(s, x, found, score), Words(encode(x, PENDING), PENDING, 48))
        below = x.max(axis=-1, keepdims=True) - m
        assert below.min() >= -SMALL
        assert below.max() < found.delta + SMALL


def test_every_step_and_its_edges(run: Run) -> None:
    """Maxima at every threshold, a unit and a half below and above: at or above by a unit they reach it for certain."""
    found = Steps(-2.0, 1.5, 6, 2, 8)
    maxima = np.concatenate([[c - 0.25, c - SMALL, c + 0.25, c + 0.75] for c in found.thresholds])
    x = np.stack([maxima, np.full_like(maxima, -9.0)], axis=1)
    m = run(lambda s, x: coarse_maximum(s, x, found, Range(-9.0, 9.0)), x, fracs=[16])
    steps_below = np.floor((maxima - found.start) / found.step)
    np.testing.assert_array_equal(m[:, 0], found.start + steps_below * found.step)


def test_maxima_outside_of_their_range_are_clamped(run: Run) -> None:
    found = Steps(0.0, 2.0, 3, 2, 8)
    x = np.array([[-7.0, -5.0], [-7.0, 11.0], [8.9, 0.0]])
    m = run(lambda s, x: coarse_maximum(s, x, found, Range(-8.0, 12.0)), x, fracs=[16])
    assert m[:, 0].tolist() == [0.0, 6.0, 6.0]


def test_a_narrow_range_needs_no_comparison() -> None:
    score, maximum = Range(-6.0, 3.5), Range(2.0, 3.5)
    found = steps(maximum, score)
    assert found == Steps(2.0, 1.75, 0, found.precision, 0) and found.delta == 1.75
    (m,), outcome = run(lambda s, x: coarse_maximum(s, x, found, score), np.zeros((2, 3, 5)))
    assert (m == 2.0).all() and m.shape == (2, 3, 1)
    assert outcome.plan.kinds == () and outcome.cost.rounds == 0
    assert by_thresholds(5, found) == (0, 0.0)


# ---- choosing thresholds --------------------------------------------------------------------------------------------


@examples(200)
@given(low=st.floats(-150.0, 0.0), top=st.floats(-10.0, 30.0), more=st.floats(0.0, 80.0),
       most=st.sampled_from([0.5, 0.75, 1.0, 1.5, 2.0]))
def test_steps_cover_the_range(low: float, top: float, more: float, most: float) -> None:
    low = min(low, top)
    maximum, score = Range(top, top + more), Range(low, top + more)
    found = steps(maximum, score, most)
    if found is None:
        assert more > 45.0 or top + more - low > 100.0 or most < 1.0  # too many thresholds, or too wide an opening
        return
    assert found.delta <= most
    assert found.start <= top < found.start + 0.5 + SMALL
    assert found.start + (found.number + 1) * found.step >= top + more
    unit = 2.0**-found.precision
    assert all(c % unit == 0.0 for c in (found.start, *found.thresholds))
    assert found.window in range(2, 11) if found.number else found.window == 0
    constant = constant_below(score, found)
    assert constant <= low and all(constant + unit <= c for c in found.thresholds)


def test_the_shortest_opening_then_the_fewest_thresholds() -> None:
    narrow = steps(Range(2.0, 12.0), Range(-12.0, 13.0))
    assert (narrow.window, narrow.precision, narrow.number, narrow.step) == (8, 2, 5, 1.75)
    wide = steps(Range(-1.0, 30.0), Range(-60.0, 40.0))
    assert wide.window in (9, 10) and wide.number == 17
    assert steps(Range(0.0, 100.0), Range(-600.0, 100.0)) is None


def test_a_maximum_is_as_coarse_as_the_table_of_exp_allows() -> None:
    for low in np.arange(-450.0, 0.0, 0.7):
        delta = deepest(Range(low, 0.0))
        assert LEAST_DELTA <= delta <= HIGHEST
        least, found = table(low, LEAST_DELTA), table(low, delta)
        assert (least and least.period_bits) == (found and found.period_bits)
        if delta < HIGHEST:
            beyond = table(low, delta + 0.25)
            assert beyond is None or beyond.period_bits > found.period_bits
    assert {deepest(Range(low, 0.0)) for low in np.arange(-14.0, 0.0, 0.1)} > {0.5, 1.0, 2.0}


# ---- prices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1, 2, 5, 64, 128, 255, 256, 300])
def test_prices_are_those_of_plans(t: int) -> None:
    """For as many rows as fill words of bits, a price is what the recorder counts."""
    score, maximum, shape = Range(-12.0, 13.0), Range(2.0, 12.0), (64, t)
    found, bound = steps(maximum, score), 14.0
    plan = PlanRecorder().record(lambda s: coarse_maximum(s, s.accept(ghost(shape)), found, score))
    price = by_thresholds(t, found)
    assert (plan.rounds, plan.bytes) == (price.rounds, price.sent * 64 * t)
    for windows in ((WINDOW,), (OCTET, WINDOW)):
        at = {"score": score}
        plan = PlanRecorder().record(lambda s, at=at, w=windows: row_maximum(s, s.accept(ghost(shape)), None, at,
                                                                             least_bound=bound, windows=w))
        price = by_tree(t, bound, windows)
        assert (plan.rounds, plan.bytes) == (price.rounds, pytest.approx(price.sent * 64 * t))


@pytest.mark.parametrize(("t", "taken"), [(1, False), (4, False), (8, True), (16, True), (128, True), (512, True)])
def test_the_cheaper_way_is_taken(t: int, taken: bool) -> None:
    at = site(Range(-12.0, 13.0), Range(2.0, 12.0), 24.0)

    def plan(at: Site) -> Any:
        return PlanRecorder().record(lambda s: row_maximum(s, s.accept(ghost((2, t))), None, at,
                                                           windows=(OCTET, WINDOW)))

    assert any(isinstance(k, Reached) for k in plan(at).kinds) is taken
    tree = plan({"score": at["score"]})
    assert not any(isinstance(k, Reached) for k in tree.kinds)
    if taken:
        assert plan(at).rounds == 4 < tree.rounds == 2 * math.ceil(math.log2(t))
        assert plan(at).bytes < tree.bytes or t < 128


def test_what_follows_has_a_say() -> None:
    """Two rounds more beyond a delta of 1 outweigh few thresholds, not many; rounds for any delta change nothing."""
    score = Range(-12.0, 13.0)
    for top, smaller in ((4.0, True), (12.0, False)):
        maximum = Range(2.0, top)
        free = cheapest(128, maximum, score, 2.0)
        bound = cheapest(128, maximum, score, 2.0, lambda delta: 2 if delta > 1.0 else 0)
        assert free == steps(maximum, score) and free.delta > 1.0
        assert (bound.delta <= 1.0) is smaller and (bound == free) is not smaller
        assert cheapest(128, maximum, score, 2.0, lambda delta: 5) == free
    assert cheapest(128, Range(0.0, 100.0), Range(-600.0, 100.0), 2.0) is None
    at = site(Range(-12.0, 31.0), Range(2.0, 30.0), 36.0)  # too long a range for steps below 0.5

    def takes_thresholds(following: Any) -> bool:
        plan = PlanRecorder().record(lambda s: row_maximum(s, s.accept(ghost((2, 16))), None, at, following=following,
                                                           windows=(OCTET, WINDOW)))
        return any(isinstance(k, Reached) for k in plan.kinds)

    assert takes_thresholds(lambda delta: 0) and not takes_thresholds(lambda delta: 9 if delta > 0.5 else 0)


# ---- for softmax ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("t", "scale", "shift"), [(16, 3.0, 0.0), (33, 2.0, -20.0), (128, 4.0, 5.0), (40, 0.1, 1.0)])
def test_softmax_by_thresholds(run: Run, t: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(t)
    scores, values = shift + scale * rng.normal(size=(2, 2, t, t)), rng.normal(size=(2, 2, t, 4))
    mask = np.arange(t) < np.array([t, t // 2 + 1])[:, None]
    real = [s[..., m] for s, m in zip(scores, mask, strict=True)]
    maxima = np.concatenate([r.max(axis=-1).reshape(-1) for r in real])
    sums = np.concatenate([np.exp(r - r.max(axis=-1, keepdims=True)).sum(axis=-1).reshape(-1) for r in real])
    at = site(Range(min(r.min() for r in real), max(r.max() for r in real)), Range(maxima.min(), maxima.max()),
              max((r.max(axis=-1, keepdims=True) - r).max() for r in real))
    at = {**at, "value": Range(values.min(), values.max()), "exp_sum": Range(sums.min(), sums.max())}
    garbage = np.where(mask[:, None, None, :], scores, shift + 7.5)
    got = run(lambda s, x, v: softmax_series(s, x, v, mask, at), garbage, values, fracs=[PENDING, 16])
    assert np.abs(got - softmax_exact(scores, mask) @ values).max() <= 1e-3


def test_masked_columns_reach_no_threshold(run: Run) -> None:
    """Padding whose scores are larger than all others, beside rows whose maximum is the least."""
    t, at = 32, site(Range(-6.5, 9.0), Range(-6.5, 9.0), 15.5)
    scores = np.full((2, 1, 1, t), -6.5)
    scores[0, ..., 20:], scores[1, ..., 3] = 100.0, 9.0
    mask = np.ones((2, t), dtype=bool)
    mask[0, 20:] = False
    m = run(lambda s, x: row_maximum(s, x, mask[:, None, None, :].astype(np.int64), at, windows=(WINDOW,)).maximum,
            scores, fracs=[PENDING])
    assert -6.5 - HIGHEST < m[0] <= -6.5 and 9.0 - HIGHEST < m[1] <= 9.0


@pytest.mark.parametrize("high", [3.5, 9.5])
@pytest.mark.parametrize("shift", [-9.0, 9.0])
def test_a_guard_sees_rows_whose_maximum_left_its_range(shift: float, high: float) -> None:
    """By the exponential's domain or by the row's sum; rows inside of all ranges are not marked. Without
    thresholds, and with some."""
    rng, t = np.random.default_rng(5), 32
    scores, values = np.clip(rng.normal(size=(3, 1, t, t)), -2.0, 2.0), rng.normal(size=(3, 1, t, 4))
    scores[:, :, :, 7] = 3.0
    mask, at = np.ones((3, t), dtype=bool), site(Range(-12.0, 12.0), Range(2.5, high), 8.0)
    at = {**at, "value": Range(-4.0, 4.0), "exp_sum": Range(1.0, 8.0)}
    scores[1, 0, 3] += shift

    def program(s: Any, x: Any, v: Any) -> Any:
        with s.guarding({3: np.arange(3)}, 3, Guarded(apart=True)) as guard:
            softmax_series(s, s.accept(x, frac=PENDING, width=64), s.accept(v), mask, at)
        return guard.words

    words = [encode(v, f) for v, f in ((scores, PENDING), (values, 16))]
    masks = [rng.integers(0, 2**64, size=w.shape, dtype=np.uint64) for w in words]
    assert (steps(at["maximum"], at["score"]).number > 0) is (high > 4.0)
    outcome = World().run(lambda s, given: program(s, *given), masks,
                          [w - m for w, m in zip(words, masks, strict=True)])
    marked = ((outcome.results[0] + outcome.results[1]) != 0).any(axis=1)
    assert marked.tolist() == [False, True, False]
