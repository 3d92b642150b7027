"""Quantities: their formulas in both array libraries, with padding and without; how they widen; how they are asked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.mpc.errors import RangeError, SettingsError
from secformer.mpc.fixed import FixedPoint
from secformer.protocols.quantities import (
    ATTENTION,
    DISTANCE,
    EXP_SUM,
    GAIN,
    INPUT,
    KNOWN,
    MAXIMUM,
    QUAD_SHIFT,
    QUAD_SUM,
    RATIO,
    RELU_SUM,
    ROW_SUM,
    SCORE,
    SLACK,
    SPREAD,
    VARIANCE,
    Quantity,
    Widening,
    apart,
    measured,
    needed,
    needs,
    opened,
    opens,
    positive,
    real_scores,
)
from secformer.protocols.ranges import Range

reals = st.floats(-1e4, 1e4, allow_subnormal=False)
sizes = st.floats(1e-6, 1e6)
RULES = {q.name: q.widening for q in KNOWN.values()}


# ---- formulas --------------------------------------------------------------------------------------------------------


def attention(scores: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """All quantities of attention by the package's formulas, on NumPy."""
    real = mask[:, None, None, :]
    filled, values = real_scores(np, scores, real), np.linspace(-2.0, 3.0, scores[..., :1].size)
    values = values.reshape(*scores.shape[:-1], 1)
    return {q.name: q.of(np, filled, values, real) for q in ATTENTION}


def formulas(real: np.ndarray) -> dict[str, np.ndarray]:
    """The same of one text's real columns (H, T, n), as textbooks have them."""
    spread = real - real.max(axis=-1, keepdims=True)
    return {"value": np.array([-2.0, 3.0]), "score": real, "spread": spread, "exp_sum": np.exp(spread).sum(axis=-1),
            "log_mean": np.log(np.exp(real).mean(axis=-1)), "quad_sum": ((real + QUAD_SHIFT) ** 2).sum(axis=-1),
            "relu_sum": np.maximum(real, 0.0).sum(axis=-1), "maximum": real.max(axis=-1)}


def ends(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


@pytest.mark.parametrize("real", [9, 4, 1])
@pytest.mark.parametrize("shift", [-20.0, 0.0, 20.0])
def test_padding_changes_no_range(real: int, shift: float) -> None:
    """Whatever stands in columns of padding, the extremes are those of the real columns."""
    scores = shift + np.random.default_rng(real).normal(0.0, 3.0, (1, 2, 9, 9))
    mask = np.arange(9)[None] < real
    expected = formulas(scores[0][..., mask[0]])
    for filler in (0.0, -1e3, 1e3):
        found = attention(np.where(mask[:, None, None, :], scores, filler), mask)
        assert set(found) == set(expected)
        for name, values in found.items():
            np.testing.assert_allclose(ends(values), ends(expected[name]), rtol=1e-14, err_msg=name)


def test_without_padding_scores_are_as_they_are() -> None:
    scores = np.random.default_rng(0).normal(size=(2, 1, 5, 5))
    np.testing.assert_array_equal(real_scores(np, scores, np.ones((2, 1, 1, 5), dtype=bool)), scores)


def test_sums_do_not_depend_on_memory_layout() -> None:
    scores, mask = np.random.default_rng(1).normal(0.0, 4.0, (1, 3, 64, 64)), np.ones((1, 64), dtype=bool)
    one, other = attention(scores, mask), attention(np.asfortranarray(scores), mask)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_variance() -> None:
    x = np.random.default_rng(2).normal(3.0, 2.0, (7, 33))
    np.testing.assert_array_equal(VARIANCE.of(np, x, np.ones(33), np.zeros(33)), x.var(axis=-1))
    for parameters in ((), (np.ones(33), np.zeros(33))):
        assert INPUT.of(np, x, *parameters) is x


def test_row_sums() -> None:
    x = np.random.default_rng(2).normal(3.0, 2.0, (7, 33))
    np.testing.assert_array_equal(ROW_SUM.of(np, x, np.ones(33), 0.0), x.sum(axis=-1))


def test_torch_agrees() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    scores, x, mask = rng.normal(0.0, 3.0, (2, 2, 7, 7)), rng.normal(size=(5, 12)), np.arange(7) < [[7], [3]]
    expected = attention(scores, mask)
    real = torch.asarray(mask[:, None, None, :])
    filled = real_scores(torch, torch.tensor(scores), real)
    values = torch.linspace(-2.0, 3.0, 28, dtype=torch.float64).reshape(2, 2, 7, 1)
    for q in ATTENTION:
        np.testing.assert_allclose(q.of(torch, filled, values, real).numpy(), expected[q.name], rtol=1e-12)
    one = torch.ones(12)
    np.testing.assert_allclose(VARIANCE.of(torch, torch.tensor(x), one, one).numpy(), x.var(axis=-1), rtol=1e-12)
    assert INPUT.of(torch, one) is one
    gains = torch.tensor([0.5, -3.0, 1.0], dtype=torch.float64)
    assert float(GAIN.of(torch, torch.tensor(x), gains, gains)) == 4.0


@pytest.mark.parametrize("gains, bound", [([0.5, -3.0, 1.0], 4.0), ([2.0], 2.0), ([2.0001], 4.0), ([0.3, 0.1], 0.5),
                                          ([0.0, 0.0], 2.0**-16)])
def test_a_profile_says_no_more_of_gains_than_the_power_of_two_above(gains: list[float], bound: float) -> None:
    gamma = np.array(gains)
    found = GAIN.of(np, np.ones((2, gamma.size)), gamma, np.zeros(gamma.size))
    assert found == bound and GAIN.widening(Range(bound, bound), 1.25) == Range(bound, bound)
    assert GAIN.widening.coarse(Range(bound, bound)) == Range(bound, bound)


# ---- widening --------------------------------------------------------------------------------------------------------


@given(reals, reals, st.sampled_from([INPUT, SCORE, MAXIMUM]), st.floats(1.0, 4.0))
def test_distances_widen_by_a_share_of_the_length(a: float, b: float, quantity: Quantity, margin: float) -> None:
    r = Range(min(a, b), max(a, b))
    w = quantity.widening(r, margin)
    assert w.low <= r.low and w.high >= r.high
    assert w.high - w.low == pytest.approx(margin * (r.high - r.low) + 2.0 * SLACK * (margin > 1.0), abs=1e-6)


@given(sizes, sizes, st.sampled_from([VARIANCE, QUAD_SUM, RELU_SUM]), st.floats(1.0, 4.0))
def test_ratios_widen_by_a_factor(a: float, b: float, quantity: Quantity, margin: float) -> None:
    r = Range(min(a, b), max(a, b))
    w = quantity.widening(r, margin)
    np.testing.assert_allclose((w.low, w.high), (r.low / (2.0 * margin - 1.0), r.high * (2.0 * margin - 1.0)))
    assert 0.0 < w.low <= r.low <= r.high <= w.high


@given(sizes, sizes, st.sampled_from(sorted(RULES)))
def test_a_margin_of_one_leaves_a_range_as_it_is(a: float, b: float, name: str) -> None:
    r = Range(min(a, b), max(a, b))
    assert RULES[name](r, 1.0) == r


def test_bounds_that_widening_keeps() -> None:
    assert EXP_SUM.widening(Range(1.25, 5.0), 1.25) == Range(1.0, 7.5)
    assert EXP_SUM.widening(Range(3.0, 5.0), 1.25) == Range(2.0, 7.5)
    assert SPREAD.widening(Range(-8.0, 0.0), 1.25) == Range(-8.0 - 1.0 - SLACK, 0.0)
    assert RELU_SUM.widening(Range(0.0, 3.0), 1.5) == Range(0.0, 6.0)
    assert Widening(most=1.0)(Range(-8.0, 2.0), 1.25).high == 2.0, "a bound never narrows what was measured"


@given(reals, reals)
def test_coarse_contains(a: float, b: float) -> None:
    r = Range(min(a, b), max(a, b))
    out = DISTANCE.coarse(r)
    assert out.low <= r.low and r.high <= out.high
    assert r.low - out.low <= 1.0 and out.high - r.high <= 1.0


@given(sizes, sizes)
def test_coarse_ratios_are_powers_of_two(a: float, b: float) -> None:
    r = Range(min(a, b), max(a, b))
    out = RATIO.coarse(r)
    assert out.low <= r.low < 2.0 * out.low and out.high / 2.0 < r.high <= out.high
    assert all(math.frexp(end)[0] == 0.5 for end in (out.low, out.high))
    assert RATIO.coarse(Range(0.0, 3.0)) == Range(0.0, 4.0)


# ---- declaring and asking --------------------------------------------------------------------------------------------


def test_declarations_are_data() -> None:
    mine = Quantity("mine", lambda xp, x: xp.abs(x), RATIO)

    @needs(INPUT, mine)
    def declared() -> int:
        return 7

    def silent() -> int:
        return 8

    assert needed(declared, ()) == (INPUT, mine) and declared() == 7
    assert needed(silent, (INPUT,)) == (INPUT,)
    assert needed(needs()(silent), (INPUT,)) == ()


def test_a_name_means_one_thing() -> None:
    with pytest.raises(SettingsError, match=r"'score' stands for another quantity.*Known: input, gain, .*, score"):
        needs(Quantity("score", lambda xp, x: x))
    a, b = (Quantity("mine", lambda xp, x: x), Quantity("mine", lambda xp, x: x, RATIO))
    with pytest.raises(SettingsError, match="choose a name of your own"):
        needs(a, b)


def test_known_names() -> None:
    """They stand in profiles: renaming one makes every file stale."""
    assert list(KNOWN) == ["input", "gain", "variance", "row_sum", "mean_square", "value", "score", "spread", "exp_sum",
                           "log_mean", "quad_sum", "relu_sum", "maximum", "gate", "most"]
    with pytest.raises(TypeError):
        KNOWN["x"] = INPUT  # type: ignore[index]


def test_measured() -> None:
    at = {"input": Range(-1.0, 2.0)}
    assert measured(at, INPUT) is at["input"]
    with pytest.raises(RangeError, match=r"'score'.*got \['input'\].*secformer profile"):
        measured(at, SCORE)
    for low, high in ((2.0, 1.0), (math.nan, 1.0), (0.0, math.inf)):
        with pytest.raises(RangeError, match="finite with low <= high"):
            measured({"input": Range(low, high)}, INPUT)


def test_positive() -> None:
    def at(low: float, high: float) -> dict[str, Any]:
        return {"variance": Range(low, high)}

    assert positive(at(0.0, 1.0), VARIANCE).high == 1.0
    for low, high in ((-1.0, 1.0), (0.0, 0.0)):
        with pytest.raises(RangeError, match="must be positive"):
            positive(at(low, high), VARIANCE)


def test_the_least_magnitude_that_a_protocol_opens() -> None:
    @opens(lambda fixed, at: round(at["input"].high) - fixed.frac)
    def declared() -> None: ...

    fixed = FixedPoint(frac=12)
    assert [opened(declared, fixed, {"input": Range(0.0, high)}) for high in (20.0, 13.0, 2.0)] == [8, 1, 1]
    assert opened(measured, fixed, {}) == 1


@pytest.mark.parametrize("r, most, least", [
    (Range(-4.0, 4.0), None, 6), (Range(-4.0, 4.0), 60.0, 4), (Range(-4.0, 4.0), 12.0, 2), (Range(-4.0, 4.0), 1e6, 6),
    (Range(0.0, 1.0), None, 3),
])
def test_magnitudes_that_keep_values_apart(r: Range, most: float | None, least: int) -> None:
    """What is opened holds 32 times the range, or all that any text can give beside the range."""
    at = {} if most is None else {"most": Range(most, most)}
    found = apart(at, r)
    assert found == least
    period = 2.0 ** (found + 2)
    assert period >= 32.0 * (r.high - r.low) or period >= most + r.reach
