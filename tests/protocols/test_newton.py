"""1/y and 1/sqrt(v) by Newton's iteration, against CrypTen's formulas in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples
from protocols_lab import PENDING, Run, inverse, limit

from secformer.mpc.errors import RangeError
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.protocols.newton import reciprocal_newton, reciprocal_plan, root_plan, rsqrt_newton
from secformer.protocols.ranges import Range


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


@pytest.mark.parametrize("low, high", [(1.0, 1.0), (0.9, 130.0), (15.8, 2700.0), (30.0, 9000.0), (0.02, 9.0)])
def test_reciprocals(run: Run, low: float, high: float) -> None:
    y = np.geomspace(low, high, 300)
    got = inverse(run, reciprocal_newton, y, Range(low, high), PENDING if high < 8000.0 else 16)
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


@pytest.mark.parametrize("low, high", [(0.3, 3.0), (2.0, 80.0), (0.003, 0.03), (50.0, 4000.0)])
def test_rsqrt_newton_is_its_formula(twin: Run, low: float, high: float) -> None:
    v = np.geomspace(low, high, 300)
    move, iterations = root_plan(Range(low, high))
    assert iterations == 3
    got = inverse(twin, rsqrt_newton, v, Range(low, high), PENDING)
    np.testing.assert_allclose(got, newton_root(v / 4.0**move) / 2.0**move, rtol=1e-5)


@pytest.mark.parametrize("low, high", [(1.0, 1.0), (0.1, 2.0), (0.002, 0.02), (0.1, 90.0), (2.0, 5000.0)])
def test_rsqrts(run: Run, low: float, high: float) -> None:
    v = np.geomspace(low, high, 300)
    assert np.abs(inverse(run, rsqrt_newton, v, Range(low, high), PENDING) * np.sqrt(v) - 1.0).max() <= 5.1e-3


@given(st.floats(-12.0, 8.0), st.floats(0.0, 14.0))
@examples(20)
def test_rsqrts_on_any_domain(twin: Run, start: float, octaves: float) -> None:
    domain = Range(2.0**start, 2.0 ** (start + octaves))
    v = np.geomspace(domain.low, domain.high, 200)
    assert np.abs(inverse(twin, rsqrt_newton, v, domain, 8) * np.sqrt(v) - 1.0).max() <= 5.1e-3


@pytest.mark.parametrize("protocol", [reciprocal_newton, rsqrt_newton])
@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan, 1.0)])
def test_bad_domains(protocol: Callable[..., Share], low: float, high: float) -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match="positive domain"):
        protocol(s, s.public(1.0, (3, 1)), Range(low, high), scale_bits=4)


@pytest.mark.parametrize("protocol", [reciprocal_newton, rsqrt_newton])
def test_domains_that_are_too_wide(protocol: Callable[..., Share]) -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match="does not cover"):
        protocol(s, s.public(1.0, (3, 1)), Range(1e-20, 1e6), scale_bits=4)
