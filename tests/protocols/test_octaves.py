"""1/y and 1/sqrt(v) by octaves."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples
from protocols_lab import PENDING, Run, inverse

from secformer.mpc.errors import RangeError
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.protocols.octaves import reciprocal_octaves, rsqrt_octaves
from secformer.protocols.ranges import Range


@pytest.mark.parametrize("low, high", [(1.0, 1.0), (0.9, 130.0), (15.8, 2700.0), (30.0, 9000.0), (0.02, 9.0)])
def test_reciprocals(run: Run, low: float, high: float) -> None:
    y = np.geomspace(low, high, 300)
    got = inverse(run, reciprocal_octaves, y, Range(low, high), PENDING if high < 8000.0 else 16)
    assert np.abs(got * y - 1.0).max() <= 3e-4


@given(st.floats(-8.0, 10.0), st.floats(0.0, 16.0))
@examples(20)
def test_reciprocals_on_any_domain(twin: Run, start: float, octaves: float) -> None:
    domain = Range(2.0**start, 2.0 ** (start + octaves))
    y = np.geomspace(domain.low, domain.high, 200)
    assert np.abs(inverse(twin, reciprocal_octaves, y, domain, 8) * y - 1.0).max() <= 6e-5


@pytest.mark.parametrize("low, high", [(1.0, 1.0), (0.1, 2.0), (0.002, 0.02), (0.1, 90.0), (2.0, 5000.0)])
def test_rsqrts(run: Run, low: float, high: float) -> None:
    v = np.geomspace(low, high, 300)
    assert np.abs(inverse(run, rsqrt_octaves, v, Range(low, high), PENDING) * np.sqrt(v) - 1.0).max() <= 2e-4


@given(st.floats(-12.0, 8.0), st.floats(0.0, 14.0))
@examples(20)
def test_rsqrts_on_any_domain(twin: Run, start: float, octaves: float) -> None:
    domain = Range(2.0**start, 2.0 ** (start + octaves))
    v = np.geomspace(domain.low, domain.high, 200)
    assert np.abs(inverse(twin, rsqrt_octaves, v, domain, 8) * np.sqrt(v) - 1.0).max() <= 1.5e-4


@pytest.mark.parametrize("protocol", [reciprocal_octaves, rsqrt_octaves])
@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan, 1.0)])
def test_bad_domains(protocol: Callable[..., Share], low: float, high: float) -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match="positive domain"):
        protocol(s, s.public(1.0, (3, 1)), Range(low, high), scale_bits=4)


@pytest.mark.parametrize("protocol", [reciprocal_octaves, rsqrt_octaves])
def test_domains_that_are_too_wide(protocol: Callable[..., Share]) -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match="covers 20 octaves"):
        protocol(s, s.public(1.0, (3, 1)), Range(1e-20, 1e6), scale_bits=4)
