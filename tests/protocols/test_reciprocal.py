"""1/y by series and by Goldschmidt, over whole domains, against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples
from protocols_lab import Run, worst

from secformer.mpc.errors import RangeError
from secformer.mpc.sessions.plain import PlainSession
from secformer.protocols import reciprocal
from secformer.protocols.ranges import Range
from secformer.protocols.reciprocal import reciprocal_fit


@pytest.mark.parametrize("low, high", [(1.0, 1.0), (0.9, 18.0), (0.9, 145.0), (0.9, 580.0), (14.0, 9000.0)])
def test_reciprocal_series(run: Run, low: float, high: float) -> None:
    y = np.geomspace(low, high, 400)[:, None]
    j = math.ceil(math.log2(high)) + 3
    got = run(lambda s, y: reciprocal.reciprocal_series(s, y, Range(low, high), scale_bits=j), y, fracs=[16])
    assert np.abs(got / 2.0**j * y - 1.0).max() <= 2e-4


@pytest.mark.parametrize("low, high", [(3.0, 3.0), (5.0, 9995.0), (30.0, 4000.0), (0.1, 16_000.0)])
def test_reciprocal_goldschmidt(run: Run, low: float, high: float) -> None:
    y = np.geomspace(low, high, 400)[:, None]
    j = math.ceil(math.log2(high)) + 1
    eta, n = reciprocal.deflation(Range(low, high))
    got = run(lambda s, y: reciprocal.reciprocal_goldschmidt(s, y, eta=eta, iterations=n, scale_bits=j), y, fracs=[16])
    assert np.abs(got / 2.0**j * y - 1.0).max() <= (5e-4 if n == 13 and eta == 5000.0 else 1e-4)


def test_deflation_takes_the_papers_constants_where_they_hold() -> None:
    assert reciprocal.deflation(Range(5.0, 9995.0)) == (5000.0, 13)
    assert reciprocal.deflation(Range(4.9, 9995.0)) != (5000.0, 13)
    assert reciprocal.deflation(Range(5.0, 10_000.0)) != (5000.0, 13)


@given(st.floats(-10.0, 10.0), st.floats(0.0, 16.0))
@examples(40)
def test_deflation_converges_everywhere(start: float, octaves: float) -> None:
    """The iteration in float64, over the domain, to the tolerance: the paper's constants are the least accurate."""
    domain = Range(2.0**start, 2.0 ** (start + octaves))
    v = np.geomspace(domain.low, domain.high, 300)
    eta, n = reciprocal.deflation(domain)
    d = v / eta
    for _ in range(n):
        d = d * (2.0 - d)
    assert np.abs(d - 1.0).max() <= 3e-4


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan, 1.0)])
def test_bad_domains(low: float, high: float) -> None:
    s = PlainSession()
    y = s.public(1.0, (3, 1))
    for refuse in (
        lambda d: reciprocal.reciprocal_series(s, y, d, scale_bits=4),
        reciprocal.deflation,
    ):
        with pytest.raises(RangeError, match="positive domain"):
            refuse(Range(low, high))


def test_domains_that_are_too_wide() -> None:
    with pytest.raises(RangeError, match="does not cover"):
        reciprocal.deflation(Range(1e-30, 1.0))


@pytest.mark.parametrize("most", [4.0, 30.0, 130.0])
def test_reciprocal_fits(most: float) -> None:
    found = reciprocal_fit(0.9, most, 10)
    assert worst(found, lambda y: 2.0**10 / y, relative=True) <= found.error <= 1.2e-4
