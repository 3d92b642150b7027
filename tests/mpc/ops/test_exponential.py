"""The exponential from one opening: within the stated error of float64 on the whole domain, in every format."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import KERNELS, ULP, Words, compute, examples, kernels_named, run, words_of

from secformer.mpc.dealer.kinds import CHUNK, ExpMask
from secformer.mpc.errors import RangeError, ShapeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.functions import MASK_FRAC, PUBLIC_FRAC, SLACK, Exponential, opening_bits
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share

TABLE = math.exp(16.0) * 2.0 ** -(MASK_FRAC + 1)  # half a unit of the table under the largest public factor: 2.1e-6
HIGHS = [0.0, 0.125, 0.25, 1.0, 2.0]


def tolerance(x: np.ndarray, lost: float = 0.0) -> np.ndarray:
    """What the module promises before the result settles: the table, the public factor, and the fractional bits of x
    that are dropped, of which up to two units go."""
    return TABLE + np.exp(x) * (2.0 ** -(PUBLIC_FRAC + 1) + 2.0 * lost + 2.0**-40)


def inputs(f: Exponential, frac: int, rng: np.random.Generator, size: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Values of the whole domain and more of them near its upper end, and their words. What is dropped leads down, so
    the lowest is two units of 16 bits above the end."""
    x = np.concatenate([rng.uniform(f.low, f.high, size), rng.uniform(max(f.low, -9.0), f.high, size),
                        [f.low + 2.0 * ULP, f.high, 0.0]])
    whole = np.floor(x * 2.0**frac)
    return whole / 2.0**frac, words_of([int(v) for v in whole])


def value(result: Any) -> np.ndarray:
    return np.asarray(result[0].value)


# ---- the error ------------------------------------------------------------------------------------------------------


@examples(40)
@given(period=st.integers(5, 10), high=st.sampled_from(HIGHS), seed=st.integers(0, 999),
       name=st.sampled_from(KERNELS), trivial=st.booleans())
def test_settled_values(period: int, high: float, seed: int, name: str, trivial: bool) -> None:
    f = Exponential(period, high)
    x, words = inputs(f, 16, np.random.default_rng(seed))
    given = {"seed": seed, "kernels": kernels_named(name), "trivial": trivial}
    result, outcome = run(lambda s, x: s.exponential(x, f), Words(words), raw=True, **given)
    assert (np.abs(value(result) - np.exp(x)) <= tolerance(x)).all()
    assert (outcome.cost.rounds, outcome.cost.bytes) == (1, 2 * x.size * -(-(period + 16) // 8))
    assert [type(k).__name__ for k in outcome.plan.kinds] == ["ExpMask"]
    got = compute(lambda s, x: s.exponential(x, f), Words(words), **given)
    assert (np.abs(got - np.exp(x)) <= tolerance(x) + ULP).all()


@examples(40)
@given(period=st.integers(5, 10), high=st.sampled_from(HIGHS), seed=st.integers(0, 999),
       width=st.sampled_from([48, 56, 64]))
def test_pending_values_go_in_for_free(period: int, high: float, seed: int, width: int) -> None:
    f = Exponential(period, high)
    x, words = inputs(f, 32, np.random.default_rng(seed))
    result, outcome = run(lambda s, x: s.exponential(x, f), Words(words, 32, width), raw=True, seed=seed)
    bits, keep, _ = opening_bits(period, 32)
    error = value(result) - np.exp(x)
    assert (np.abs(error) <= tolerance(x, 2.0**-keep)).all()
    assert (error <= tolerance(x)).all(), "what is dropped leads down only"
    assert keep >= 16
    (kind,) = outcome.plan.kinds
    assert isinstance(kind, ExpMask)
    assert (kind.bits, outcome.cost.rounds) == (bits, 1)
    got = compute(lambda s, x: s.exponential(x, f), Words(words, 32, width), seed=seed)
    assert (np.abs(got - np.exp(x)) <= 4e-6 + 3.3e-5 * np.exp(x) + ULP).all()


def test_a_product_needs_no_round_of_its_own() -> None:
    f = Exponential(6, 1.0)
    x = np.rint(np.linspace(-4.0, 1.0, 99) / ULP) * ULP
    result, outcome = run(lambda s, x: s.exponential(s.mul(x, s.public(1.0, x.shape)), f), x, raw=True)
    assert outcome.cost.rounds == 2  # the product's, and one
    assert (np.abs(value(result) - np.exp(x)) <= tolerance(x, 2.0**-18)).all()


@examples(20)
@given(high=st.sampled_from(HIGHS), period=st.integers(5, 9), seed=st.integers(0, 99))
def test_slightly_above_the_upper_end_it_is_still_right(high: float, period: int, seed: int) -> None:
    x = np.rint(np.linspace(high, high + SLACK, 50) / ULP) * ULP
    (result,), _ = run(lambda s, x: s.exponential(x, Exponential(period, high)), x, raw=True, seed=seed)
    assert (np.abs(result.value - np.exp(x)) <= tolerance(x)).all()


@pytest.mark.parametrize("high", HIGHS)
@pytest.mark.parametrize("period", [5, 6, 9])
def test_domain_ends(period: int, high: float) -> None:
    f = Exponential(period, high)
    x = np.repeat([f.low, f.low + ULP, f.high, f.high - ULP], 3000)
    (result,), _ = run(lambda s, x: s.exponential(x, f), x, raw=True)
    assert (np.abs(result.value - np.exp(x)) <= tolerance(x)).all()


@examples(15)
@given(frac=st.integers(4, 24), seed=st.integers(0, 99))
def test_every_format(frac: int, seed: int) -> None:
    f, unit = Exponential(6, 0.5), 2.0**-frac
    x = np.rint(np.random.default_rng(seed).uniform(f.low + 0.1, 0.5, size=60) / unit) * unit
    got = compute(lambda s, x: s.exponential(x, f), x, fixed=FixedPoint(frac, min(12, 62 - 2 * frac)), seed=seed)
    _, keep, _ = opening_bits(6, frac)
    assert (np.abs(got - np.exp(x)) <= tolerance(x, 2.0**-keep if keep < frac else 0.0) + unit).all()


# ---- shapes and widths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [CHUNK - 1, CHUNK, CHUNK + 1])
def test_chunk_borders(count: int) -> None:
    x = np.rint(np.linspace(-40, 0.25, count) / ULP) * ULP
    (result,), _ = run(lambda s, x: s.exponential(x, Exponential(6, 0.25)), x, raw=True)
    assert (np.abs(result.value - np.exp(x)) <= tolerance(x)).all()


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0), (3, 5, 7), (1, 1, 513)])
def test_shapes_last(shape: tuple[int, ...]) -> None:
    x = np.rint(np.random.default_rng(0).uniform(-9, 0, shape) / ULP) * ULP
    got = compute(lambda s, x: s.exponential(x, Exponential(5, 0.0)), x)
    assert got.shape == shape
    assert (np.abs(got - np.exp(x)) <= tolerance(x) + ULP).all()


def test_views_go_in() -> None:
    x = np.rint(np.random.default_rng(0).uniform(-9, 0, (6, 8)) / ULP) * ULP
    got = compute(lambda s, x: s.exponential(x.transpose(1, 0)[::2], Exponential(5, 0.0)), x)
    assert (np.abs(got - np.exp(x.T[::2])) <= tolerance(x.T[::2]) + ULP).all()


def test_integers_go_in() -> None:
    """Shares without fractional bits: a short period leaves few bits to open."""
    x = np.array([0, -1, -2, -7, -13])
    got, outcome = run(lambda s, x: s.exponential(x, Exponential(5, 0.0)), Words(words_of(x), 0, 48))
    assert np.abs(got[0] - np.exp(x)).max() <= tolerance(np.zeros(1))[0] + ULP
    assert outcome.plan.kinds[0].opened == x.size


def test_scores_minus_a_coarse_maximum_feed_it() -> None:
    """The softmax pattern: right modulo the width of the coarse maximum is enough for a period no longer."""
    rng, bound = np.random.default_rng(3), 15.0
    x = np.rint(rng.uniform(-bound, bound, size=(5, 9)) / ULP) * ULP

    def program(s: Any, x: Share) -> list[Share]:
        m = s.maximum(x, 1, bound=bound, precision=3)
        return [s.exponential(x - m, Exponential(6, 0.25)), s.lift(m)[0]]

    (got, m), outcome = run(program, x)
    assert (np.abs(got - np.exp(x - m)) <= tolerance(x - m) + ULP).all()
    assert outcome.cost.rounds == 2 * 4 + 1 + 2  # the maximum's, one, and those of what is shown


def test_a_share_too_narrow_for_the_period_is_lifted() -> None:
    x = Words(words_of([int(v * 8) for v in (-3.0, 0.5)]), 3, 10)
    got, outcome = run(lambda s, x: s.exponential(Share(s, x.data, x.frac, x.width, 4), Exponential(8, 0.5)), x)
    assert [type(k).__name__ for k in outcome.plan.kinds][:2] == ["Lift", "ExpMask"]
    assert np.abs(got[0] - np.exp([-3.0, 0.5])).max() <= 2.0 * ULP


def test_results_scale_by_powers_of_two() -> None:
    x = np.rint(np.linspace(-15, 0, 200) / ULP) * ULP
    got = compute(lambda s, x: s.exponential(x, Exponential(6, 0.0)) * 2.0**4, x) / 16.0
    assert (np.abs(got - np.exp(x)) <= tolerance(x) + ULP / 16.0).all()


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("period", "high"), [(4, 0.0), (0, 0.0), (6, 2.001), (6, 16.0), (6, -0.001),
                                              (6, math.nan), (6, math.inf)])
def test_domains_that_no_table_holds_are_refused(period: int, high: float) -> None:
    with pytest.raises(RangeError, match="subtract the row maximum"):
        Exponential(period, high)


def test_the_twin_refuses_what_lies_outside() -> None:
    f, s = Exponential(6, 0.25), PlainSession()
    ends = np.array([f.low, f.high])
    np.testing.assert_array_equal(s.exponential(s.accept(ends), f).data, np.exp(ends))
    for outside in (f.low - ULP, f.high + ULP, math.nan):
        with pytest.raises(RangeError, match=r"a masked exponential holds \[-47\.6836, 0\.25\]"):
            s.exponential(s.accept(np.array([0.0, outside])), f)
    loose = PlainSession(strict=False)
    assert loose.exponential(loose.accept(ends + 1.0), f).data[1] == math.exp(1.25)
    assert s.exponential(s.accept(np.zeros((2, 0))), f).shape == (2, 0)


def test_both_worlds_keep_the_same_books() -> None:
    f, facts = Exponential(6, 0.25), []

    def program(s: Any, x: Share) -> Share:
        y = s.exponential(x, f)
        facts.append((y.frac, y.width, y.magnitude, y.shape))
        return y

    run(program, np.zeros((2, 3)))
    program(twin := PlainSession(), twin.accept(np.zeros((2, 3))))
    assert set(facts) == {(59, 64, 3, (2, 3))}


def test_a_share_of_another_session_is_refused() -> None:
    with pytest.raises(ShapeError, match="another session"):
        PlainSession().exponential(PlainSession().accept(np.zeros(2)), Exponential(5, 0.0))
