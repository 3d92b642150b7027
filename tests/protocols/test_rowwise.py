"""The published ways to 1/y, 1/sqrt(v) and exp: Newton's, by octaves, by squarings, against formulas in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples

from secformer.mpc.errors import RangeError
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.protocols.limit import exp_limit
from secformer.protocols.newton import reciprocal_newton, reciprocal_plan, root_plan, rsqrt_newton
from secformer.protocols.octaves import reciprocal_octaves, rsqrt_octaves
from secformer.protocols.ranges import Range

PENDING = 32  # fractional bits of a product that has not been settled
Run = Callable[..., np.ndarray]
BITS = 10     # results are asked for times 2^10


def limit(x: np.ndarray, squarings: int) -> np.ndarray:
    b = 1.0 + x / 2**squarings
    for _ in range(squarings):
        b = b * b
    return b


def newton_reciprocal(x: np.ndarray) -> np.ndarray:
    """CrypTen's, as printed."""
    y = 3.0 * limit(1.0 - 2.0 * x, 8) + 0.003
    for _ in range(10):
        y = y * (2.0 - x * y)
    return y


def newton_root(x: np.ndarray) -> np.ndarray:
    """CrypTen's, as printed."""
    y = 2.2 * limit(-(x / 2.0 + 0.2), 8) + 0.2 - x / 1024.0
    for _ in range(3):
        y = y * (3.0 - x * y * y) / 2.0
    return y


def inverse(run: Run, protocol: Callable[..., Share], y: np.ndarray, domain: Range, frac: int) -> np.ndarray:
    got = run(lambda s, y: protocol(s, y, domain, scale_bits=BITS), y[:, None], fracs=[frac])
    return np.asarray(got[:, 0] / 2.0**BITS)


# ---- exp -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("squarings, low, high", [(5, -14.0, 0.25), (5, -31.0, 0.0), (8, -30.0, 0.25),
                                                  (8, -480.0, 0.0)])
def test_exp_by_squarings(run: Run, squarings: int, low: float, high: float) -> None:
    x = np.linspace(low, high, 1001)
    got = run(lambda s, x: exp_limit(s, x, Range(low, high), squarings=squarings), x, fracs=[PENDING])
    assert np.abs(got - limit(x, squarings)).max() <= 2.0 ** (squarings - 17)


def test_exp_by_squarings_is_its_formula(twin: Run) -> None:
    x = np.linspace(-490.0, 0.2, 1001)
    got = twin(lambda s, x: exp_limit(s, x, Range(-490.0, 0.2), squarings=8), x, fracs=[PENDING])
    np.testing.assert_allclose(got, limit(x, 8), atol=1e-12)


@pytest.mark.parametrize("low", [-15.0, -60.0, -120.0, -900.0])
def test_below_the_floor_is_zero(run: Run, low: float) -> None:
    x = np.concatenate([np.linspace(low, -14.5, 300), np.linspace(-13.5, 0.0, 300)])
    got = run(lambda s, x: exp_limit(s, x, Range(low, 0.0), squarings=5, floor=-14.0), x, fracs=[PENDING])
    assert (got[:300] == 0.0).all()
    assert np.abs(got[300:] - limit(x[300:], 5)).max() <= 2.0**-12


def test_the_floor_is_where_it_says(twin: Run) -> None:
    x = np.array([-14.0, np.nextafter(-14.0, -15.0)])
    got = twin(lambda s, x: exp_limit(s, x, Range(-20.0, 0.0), squarings=5, floor=-14.0), x, fracs=[PENDING])
    np.testing.assert_array_equal(got > 0.0, [True, False])


@pytest.mark.parametrize("low, high", [(-512.0, 0.0), (-505.0, 0.0), (-10.0, 300.0)])
def test_exp_refuses_what_diverges(low: float, high: float) -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match="cut x before"):
        exp_limit(s, s.public(0.0, (3,)), Range(low, high), squarings=8)


# ---- 1/y -------------------------------------------------------------------------------------------------------------


def test_reciprocal_newton_is_its_formula_where_that_holds(twin: Run) -> None:
    y = np.geomspace(0.01, 128.0, 500)
    assert reciprocal_plan(Range(0.01, 128.0)) == (0, 10)
    np.testing.assert_allclose(inverse(twin, reciprocal_newton, y, Range(0.01, 128.0), 16), newton_reciprocal(y),
                               rtol=1e-9)


def test_reciprocal_newton_moves_what_the_formula_does_not_cover(twin: Run) -> None:
    """Row sums of 2Quad: the published start diverges, 2^-7 times the sum does not."""
    y = np.geomspace(300.0, 12_000.0, 200)
    with np.errstate(all="ignore"):
        assert not np.abs(newton_reciprocal(y) * y - 1.0).max() < 1.0
    move, iterations = reciprocal_plan(Range(300.0, 12_000.0))
    assert (move, iterations) == (7, 10)
    got = inverse(twin, reciprocal_newton, y, Range(300.0, 12_000.0), 16)
    np.testing.assert_allclose(got, newton_reciprocal(y / 128.0) / 128.0, rtol=1e-9)


@pytest.mark.parametrize("protocol", [reciprocal_newton, reciprocal_octaves])
@pytest.mark.parametrize("low, high", [(1.0, 1.0), (0.9, 130.0), (15.8, 2700.0), (30.0, 9000.0), (0.02, 9.0)])
def test_reciprocals(run: Run, protocol: Callable[..., Share], low: float, high: float) -> None:
    y = np.geomspace(low, high, 300)
    got = inverse(run, protocol, y, Range(low, high), PENDING if high < 8000.0 else 16)
    assert np.abs(got * y - 1.0).max() <= 3e-4


@pytest.mark.parametrize("low, high", [(0.016, 500.0), (0.25, 16_000.0)])
def test_reciprocal_newton_over_wide_domains(run: Run, low: float, high: float) -> None:
    y = np.geomspace(low, high, 300)
    assert np.abs(inverse(run, reciprocal_newton, y, Range(low, high), 16) * y - 1.0).max() <= 2e-3


@given(st.floats(-8.0, 10.0), st.floats(0.0, 16.0))
@examples(20)
def test_reciprocals_on_any_domain(twin: Run, start: float, octaves: float) -> None:
    domain = Range(2.0**start, 2.0 ** (start + octaves))
    y = np.geomspace(domain.low, domain.high, 200)
    assert np.abs(inverse(twin, reciprocal_newton, y, domain, 8) * y - 1.0).max() <= 1.1e-3
    assert np.abs(inverse(twin, reciprocal_octaves, y, domain, 8) * y - 1.0).max() <= 6e-5


# ---- 1/sqrt(v) -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("low, high", [(0.3, 3.0), (2.0, 80.0), (0.003, 0.03), (50.0, 4000.0)])
def test_rsqrt_newton_is_its_formula(twin: Run, low: float, high: float) -> None:
    v = np.geomspace(low, high, 300)
    move, iterations = root_plan(Range(low, high))
    assert iterations == 3
    got = inverse(twin, rsqrt_newton, v, Range(low, high), PENDING)
    np.testing.assert_allclose(got, newton_root(v / 4.0**move) / 2.0**move, rtol=1e-5)


@pytest.mark.parametrize("protocol, bound", [(rsqrt_newton, 5.1e-3), (rsqrt_octaves, 2e-4)])
@pytest.mark.parametrize("low, high", [(1.0, 1.0), (0.1, 2.0), (0.002, 0.02), (0.1, 90.0), (2.0, 5000.0)])
def test_rsqrts(run: Run, protocol: Callable[..., Share], bound: float, low: float, high: float) -> None:
    v = np.geomspace(low, high, 300)
    assert np.abs(inverse(run, protocol, v, Range(low, high), PENDING) * np.sqrt(v) - 1.0).max() <= bound


@given(st.floats(-12.0, 8.0), st.floats(0.0, 14.0))
@examples(20)
def test_rsqrts_on_any_domain(twin: Run, start: float, octaves: float) -> None:
    domain = Range(2.0**start, 2.0 ** (start + octaves))
    v = np.geomspace(domain.low, domain.high, 200)
    assert np.abs(inverse(twin, rsqrt_newton, v, domain, 8) * np.sqrt(v) - 1.0).max() <= 5.1e-3
    assert np.abs(inverse(twin, rsqrt_octaves, v, domain, 8) * np.sqrt(v) - 1.0).max() <= 1.5e-4


@pytest.mark.parametrize("protocol", [reciprocal_newton, reciprocal_octaves, rsqrt_newton, rsqrt_octaves])
@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan, 1.0)])
def test_bad_domains(protocol: Callable[..., Share], low: float, high: float) -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match="positive domain"):
        protocol(s, s.public(1.0, (3, 1)), Range(low, high), scale_bits=4)


@pytest.mark.parametrize("protocol, message", [
    (reciprocal_newton, "does not cover"), (reciprocal_octaves, "covers 20 octaves"), (rsqrt_newton, "does not cover"),
    (rsqrt_octaves, "covers 20 octaves"),
])
def test_domains_that_are_too_wide(protocol: Callable[..., Share], message: str) -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match=message):
        protocol(s, s.public(1.0, (3, 1)), Range(1e-20, 1e6), scale_bits=4)
