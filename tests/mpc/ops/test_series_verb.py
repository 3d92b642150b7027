"""Series from one opening: within the stated error of the float64 series, for every period, scale and width."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import KERNELS, ULP, Words, compute, examples, kernels_named, run, words_of

from secformer.mpc.dealer.kinds import CHUNK, SeriesMask
from secformer.mpc.errors import RangeError, ShapeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.functions import Series, opening_bits
from secformer.mpc.shares import Share


def random_series(rng: np.random.Generator, period: int, count: int, linear: float = 0.0, size: float = 1.0) -> Series:
    cos, sin = rng.normal(size=(2, count + 1)) * size / np.arange(1, count + 2)
    return Series(period, tuple(cos.tolist()), tuple(sin.tolist()), linear=linear, magnitude=max(8, period + 3))


def tolerance(f: Series, dropped_unit: float) -> float:
    """What the module promises: words, public part, the dropped bits of x (up to two of its units), one truncation."""
    total = sum(map(abs, f.cos[1:])) + sum(map(abs, f.sin[1:]))
    slope = sum(k * math.hypot(c, s) for k, (c, s) in enumerate(zip(f.cos, f.sin, strict=True)))
    slope *= 2 * math.pi / 2.0**f.period_bits
    return 2.0**-20 * total + 2 * f.harmonics * 2.0**-19 + 2 * slope * dropped_unit + ULP + 2.0**-36


@examples(40)
@given(
    period=st.integers(-3, 12),
    count=st.integers(1, 40),
    functions=st.integers(1, 3),
    seed=st.integers(0, 999),
    name=st.sampled_from(KERNELS),
    linear=st.sampled_from([0.0, 0.5, -0.25, 1.0]),
    trivial=st.booleans(),
)
def test_random_series_of_settled_values(
    period: int, count: int, functions: int, seed: int, name: str, linear: float, trivial: bool
) -> None:
    rng = np.random.default_rng(seed)
    fs = [
        random_series(rng, period, count, linear),
        *(random_series(rng, period, int(rng.integers(1, count + 1))) for _ in range(functions - 1)),
    ]
    half = 2.0 ** (period - 1)
    x = np.concatenate([rng.uniform(-half, half, size=30), [0.0, half, -half, half - ULP, 3.3 * half]])
    x = np.rint(x / ULP) * ULP
    results, outcome = run(lambda s, x: s.series(x, fs), x, seed=seed, kernels=kernels_named(name), trivial=trivial)
    for got, f in zip(results, fs, strict=True):
        assert np.abs(got - f(x)).max() <= tolerance(f, 0.0)
    assert outcome.plan.kinds[0].opened == x.size * -(-(period + 16) // 8)
    assert sum(isinstance(k, SeriesMask) for k in outcome.plan.kinds) == 1


@examples(25)
@given(
    period=st.integers(1, 9),
    count=st.integers(1, 20),
    seed=st.integers(0, 999),
    width=st.sampled_from([48, 56, 64]),
    linear=st.sampled_from([0.0, 0.5]),
)
def test_pending_values_go_in_for_free(period: int, count: int, seed: int, width: int, linear: float) -> None:
    rng = np.random.default_rng(seed)
    f, half = random_series(rng, period, count, linear if period <= 5 else 0.0), 2.0 ** (period - 1)
    x = np.concatenate([rng.uniform(-half, half, size=30), [0.0, half - 2.0**-32, -half]])
    words = words_of([int(v) for v in np.rint(x * 2.0**32)])
    got, outcome = run(lambda s, x: s.series(x, [f]), Words(words, 32, width), seed=seed)
    bits, keep, _ = opening_bits(period, 32)
    assert bits % 8 == 0
    assert keep >= 16
    assert np.abs(got[0] - f(np.rint(x * 2.0**32) / 2.0**32)).max() <= tolerance(f, 2.0**-keep)
    assert [type(k).__name__ for k in outcome.plan.kinds] == ["SeriesMask", "Lift"]


@examples(15)
@given(frac=st.integers(4, 24), seed=st.integers(0, 99))
def test_every_format(frac: int, seed: int) -> None:
    rng, period = np.random.default_rng(seed), 5
    f, unit = random_series(rng, period, 6), 2.0**-frac
    x = np.rint(rng.uniform(-16, 16, size=40) / unit) * unit
    got = compute(lambda s, x: s.series(x, [f])[0], x, fixed=FixedPoint(frac, min(12, 62 - 2 * frac)))
    _, keep, _ = opening_bits(period, frac)
    assert np.abs(got - f(x)).max() <= tolerance(f, 2.0**-keep if keep < frac else 0.0) + unit


@pytest.mark.parametrize("count", [CHUNK - 1, CHUNK, CHUNK + 1])
def test_chunk_borders(count: int) -> None:
    f = Series(4, (0.25, 1.0, -0.5), (0.0, 0.5, 2.0))
    x = np.rint(np.linspace(-8, 8, count) / ULP) * ULP
    assert np.abs(compute(lambda s, x: s.series(x, [f])[0], x) - f(x)).max() <= tolerance(f, 0.0)


def test_hundreds_of_harmonics() -> None:
    rng = np.random.default_rng(1)
    f = random_series(rng, 8, 256)
    x = np.rint(rng.uniform(-128, 128, size=300) / ULP) * ULP
    assert np.abs(compute(lambda s, x: s.series(x, [f])[0], x) - f(x)).max() <= tolerance(f, 0.0)


def test_shapes_last() -> None:
    f = Series(4, (0.0, 1.0), (0.0, 0.0))
    assert compute(lambda s, x: s.series(x, [f])[0], np.zeros((2, 3, 4))).shape == (2, 3, 4)
    assert compute(lambda s, x: s.series(x, [f])[0], np.zeros((2, 0))).shape == (2, 0)


def test_a_narrow_share_that_holds_the_period_goes_in_as_it_is() -> None:
    """A coarse maximum is right modulo its width only; the series needs no more."""
    f = Series(6, (0.0, 1.0), (0.0, 1.0))
    values = np.array([-30.0, -1.25, 0.0, 7.5, 31.0])
    x = Words(words_of([int(v * 8) for v in values]), 3, 11)
    got, outcome = run(lambda s, x: s.series(x, [f]), x)
    assert np.abs(got[0] - f(values)).max() <= tolerance(f, 0.0)
    assert outcome.plan.kinds[0].bits == 9


def test_a_narrow_share_with_a_linear_term() -> None:
    """The linear term needs x modulo more than the period: a share narrower than that has to be lifted first."""
    f = Series(6, (0.0, 1.0), (0.0, 0.0), linear=0.5)

    def program(s: Any, x: Share) -> Share:
        return s.series(s.maximum(x, 0, bound=64, precision=3), [f])[0]

    assert np.abs(compute(program, np.repeat([[1.0], [2.0]], 50, axis=1)) - f(np.array([2.0]))).max() <= 0.3


def test_a_pending_value_with_a_linear_term_whose_result_is_wider() -> None:
    """A product is right modulo 48 bits; its half at 38 fractional bits modulo 53, and the result's window is 56."""
    f = Series(6, (0.0, 1.0), (0.0, 0.0), linear=0.5, magnitude=9)
    x = np.linspace(-30, 30, 200)
    words = words_of([int(v) for v in np.rint(x * 2.0**32)])
    got = compute(lambda s, x: s.series(x, [f])[0], Words(words, 32, 48))
    assert np.abs(got - f(x)).max() <= tolerance(f, 2.0**-16)


@pytest.mark.parametrize("frac", [38, 39, 43])
def test_a_linear_term_of_a_value_that_is_finer_than_the_result(frac: int) -> None:
    """Half of x at 39 fractional bits has its last one at 40, and the result 38. Low bits are dropped, in no round."""
    f = Series(6, (0.0, 1.0), (0.0, 0.0), linear=0.5, magnitude=9)
    x = np.linspace(-30, 30, 200)
    words = words_of([int(v) for v in np.rint(x * 2.0**frac)])
    (got,), outcome = run(lambda s, x: s.series(x, [f]), Words(words, frac, 64))
    assert np.abs(got - f(x)).max() <= tolerance(f, 2.0**-16)
    assert [type(k).__name__ for k in outcome.plan.kinds] == ["SeriesMask", "Lift"], "and the result is settled"


@pytest.mark.parametrize("linear, finest", [(0.5, 37), (1.0, 38), (2.0, 39), (-0.75, 36), (6.0, 39)])
def test_the_finest_value_of_a_linear_term(linear: float, finest: int) -> None:
    f = Series(6, (0.0,), (0.0,), linear=linear)
    assert f.finest == finest and f.linear_factor(finest) % 2 == 1
    with pytest.raises(RangeError, match="linear term"):
        f.linear_factor(finest + 1)


def test_a_share_too_narrow_for_the_period_is_lifted() -> None:
    f = Series(8, (0.0, 1.0), (0.0, 0.0))
    x = Words(words_of([int(v * 8) for v in (-3.0, 2.5)]), 3, 10)
    got, outcome = run(lambda s, x: s.series(Share(s, x.data, x.frac, x.width, 4), [f]), x)
    assert [type(k).__name__ for k in outcome.plan.kinds][:2] == ["Lift", "SeriesMask"]
    assert np.abs(got[0] - f(np.array([-3.0, 2.5]))).max() <= tolerance(f, 0.0)


def test_integers_with_few_bits_go_in() -> None:
    """Shares of 0 or 1 have no fractional bits; a short period leaves few bits to open."""
    f = Series(2, (0.0, 1.0), (0.0, 0.5))
    got = compute(lambda s, b: s.series(b, [f])[0], Words(words_of([0, 1]), 0, 48))
    assert np.abs(got - f(np.array([0.0, 1.0]))).max() <= tolerance(f, 0.0)


def test_different_periods_in_one_opening_are_refused() -> None:
    fs = [Series(4, (0.0, 1.0), (0.0, 0.0)), Series(5, (0.0, 1.0), (0.0, 0.0))]
    with pytest.raises(ShapeError, match="one period"):
        compute(lambda s, x: s.series(x, fs)[0], np.zeros(2))
    with pytest.raises(ShapeError):
        compute(lambda s, x: s.series(x, []), np.zeros(2))


def test_a_slope_that_does_not_fit_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(RangeError, match="linear term must be a multiple"):
        compute(lambda s, x: s.series(x, [Series(4, (0.0,), (0.0,), linear=1 / 3)])[0], np.zeros(2))
