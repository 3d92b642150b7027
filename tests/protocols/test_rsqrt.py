"""1/sqrt(v) by series and by Goldschmidt, over whole domains, against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import Words, examples
from mpc_lab import run as run_at_parties
from protocols_lab import PENDING, Run, worst

from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import encode
from secformer.mpc.session import Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.protocols import rsqrt
from secformer.protocols.ranges import Range
from secformer.protocols.rsqrt import rsqrt_fit


@pytest.mark.parametrize("low, high", [(1.0, 1.0), (0.1, 2.0), (0.002, 0.02), (0.1, 25.0), (0.1, 90.0), (0.01, 5000.0)])
def test_rsqrt_series(run: Run, low: float, high: float) -> None:
    v = np.geomspace(low, high, 400)[:, None]
    j = math.ceil(math.log2(high) / 2) + 6
    got = run(lambda s, v: rsqrt.rsqrt_series(s, v, Range(low, high), scale_bits=j), v, fracs=[PENDING])
    assert np.abs(got / 2.0**j * np.sqrt(v) - 1.0).max() <= 1e-4


@given(st.floats(-12.0, 8.0), st.floats(0.0, 18.0))
@examples(15)
def test_rsqrt_series_on_any_domain(twin: Run, start: float, octaves: float) -> None:
    low, high = 2.0**start, 2.0 ** (start + octaves)
    v = np.geomspace(low, high, 500)[:, None]
    got = twin(lambda s, v: rsqrt.rsqrt_series(s, v, Range(low, high), scale_bits=9), v, fracs=[PENDING])
    assert np.abs(got / 2.0**9 * np.sqrt(v) - 1.0).max() <= 2e-5


@pytest.mark.parametrize("low, high", [(2.0, 5880.0), (0.3, 3.0), (0.003, 0.03), (0.1, 130.0)])
def test_rsqrt_goldschmidt(run: Run, low: float, high: float) -> None:
    v = np.geomspace(low, high, 400)[:, None]
    j = math.ceil(math.log2(high) / 2) + 6
    eta, n = rsqrt.deflation(Range(low, high))
    got = run(lambda s, v: rsqrt.rsqrt_goldschmidt(s, v, Range(low, high), eta=eta, iterations=n, scale_bits=j), v,
              fracs=[PENDING])
    assert np.abs(got / 2.0**j * np.sqrt(v) - 1.0).max() <= (1e-3 if n == 11 and eta == 2000.0 else 1e-4)


@pytest.mark.parametrize("width, settled", [(64, 0), (61, 0), (60, 1)])
def test_room_for_the_deflation(width: int, settled: int) -> None:
    """Where the words of v have room for 9 bits of 1 / eta, v need not settle; the largest v are as right as others."""
    domain = Range(2.0**16, 2.0**17)
    eta, n = rsqrt.deflation(domain)
    v = np.geomspace(domain.low, domain.high, 300)[:, None]

    def program(s: Session, v: Share) -> Share:
        return rsqrt.rsqrt_goldschmidt(s, v, domain, eta=eta, iterations=n, scale_bits=16)

    (got,), outcome = run_at_parties(program, Words(encode(v, 32), 32, width))
    assert np.abs(got / 2.0**16 * np.sqrt(v) - 1.0).max() <= 1e-4
    assert outcome.cost.rounds == settled + 2 * n - 1 + 1  # the last to settle the result


def test_deflation_takes_the_papers_constants_where_they_hold() -> None:
    assert rsqrt.deflation(Range(2.0, 5880.0)) == (2000.0, 11)
    assert rsqrt.deflation(Range(1.9, 5880.0)) != (2000.0, 11)
    assert rsqrt.deflation(Range(2.0, 5990.0)) != (2000.0, 11)


@given(st.floats(-10.0, 10.0), st.floats(0.0, 16.0))
@examples(40)
def test_deflation_converges_everywhere(start: float, octaves: float) -> None:
    """The iteration in float64, over the domain, to the tolerance: the paper's constants are the least accurate."""
    domain = Range(2.0**start, 2.0 ** (start + octaves))
    v = np.geomspace(domain.low, domain.high, 300)
    eta, n = rsqrt.deflation(domain)
    q = v / eta
    for _ in range(n):
        q = q * ((3.0 - q) / 2.0) ** 2
    assert np.abs(np.sqrt(q) - 1.0).max() <= 1e-3


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan, 1.0)])
def test_bad_domains(low: float, high: float) -> None:
    s = PlainSession()
    y = s.public(1.0, (3, 1))
    for refuse in (
        lambda d: rsqrt.rsqrt_series(s, y, d, scale_bits=4),
        rsqrt.deflation,
    ):
        with pytest.raises(RangeError, match="positive domain"):
            refuse(Range(low, high))


def test_domains_that_are_too_wide() -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match="ratios up to"):
        rsqrt.rsqrt_series(s, s.public(1.0, (3, 1)), Range(1e-6, 1e6), scale_bits=4)
    with pytest.raises(RangeError, match="does not cover"):
        rsqrt.deflation(Range(1e-30, 1.0))


@pytest.mark.parametrize("ratio", [2.0, 16.0, 128.0, 300.0])
def test_rsqrt_fits(ratio: float) -> None:
    found = rsqrt_fit(224.0 / ratio, 224.0, 7, 1)
    assert worst(found, lambda v: 2.0**7 * math.sqrt(2.0) / np.sqrt(v), relative=True) <= found.error <= 2e-5
