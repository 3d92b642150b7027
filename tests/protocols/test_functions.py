"""GeLU, tanh, exp, 1/y and 1/sqrt(v) over their whole domains, against float64, on plain numbers and on shares."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples

from secformer.mpc.errors import RangeError
from secformer.mpc.functions import Exponential
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.protocols import reciprocal, rsqrt
from secformer.protocols.clip import clip
from secformer.protocols.exp import MOST_PERIOD_BITS, SPARE, exp, table
from secformer.protocols.gelu import BETA, CUT, erf, gelu_exact, gelu_segmented, gelu_series, relu, segment
from secformer.protocols.ranges import Range
from secformer.protocols.tanh import tanh

PENDING = 32  # fractional bits of a product that has not been settled
Run = Callable[..., np.ndarray]

domains = st.tuples(st.floats(-60.0, 0.0), st.floats(0.0, 60.0)).filter(lambda d: d[1] > d[0])


def grid(low: float, high: float, n: int = 1501) -> np.ndarray:
    return np.linspace(low, high, n)


# ---- GeLU ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("low, high", [(-26.0, 26.0), (-12.0, 12.0), (-17.0, 25.0), (-0.1, 0.1), (-0.5, 60.0)])
def test_gelu_series(run: Run, low: float, high: float) -> None:
    x = grid(low, high)
    got = run(lambda s, x: gelu_series(s, x, {"input": Range(low, high)}), x, fracs=[PENDING])
    assert np.abs(got - gelu_exact(x)).max() <= 2e-4


@given(domains)
@examples(10)
def test_gelu_series_on_any_domain(twin: Run, domain: tuple[float, float]) -> None:
    x = grid(*domain)
    got = twin(lambda s, x: gelu_series(s, x, {"input": Range(*domain)}), x, fracs=[PENDING])
    assert np.abs(got - gelu_exact(x)).max() <= 1e-4


def test_gelu_series_far_out(run: Run) -> None:
    x = np.concatenate([grid(-2000.0, 2000.0), grid(-8.0, 8.0), [-112.0, 112.0]])
    got = run(lambda s, x: gelu_series(s, x, {"input": Range(-2000.0, 2000.0)}), x, fracs=[PENDING])
    assert np.abs(got - gelu_exact(x)).max() <= 2e-4


@pytest.mark.parametrize("reach", [0.1, 3.0, 26.0, 500.0])
@pytest.mark.parametrize("frac", [16, PENDING])
def test_gelu_segmented(run: Run, reach: float, frac: int) -> None:
    x = np.concatenate([grid(-reach, reach), [0.0]])
    got = run(lambda s, x: gelu_segmented(s, x, {"input": Range(-reach, reach)}), x, fracs=[frac])
    assert np.abs(got - gelu_exact(x)).max() <= 2e-2


def test_gelu_segmented_is_the_papers_formula(twin: Run) -> None:
    x = grid(-6.0, 6.0, 1201)
    v = x / math.sqrt(2.0)
    middle = sum(b * np.sin(k * math.pi * v / 10.0) for k, b in enumerate(BETA, start=1))
    e = np.where(v < -1.7, -1.0, np.where(v < 1.7, middle, 1.0))
    got = twin(lambda s, x: gelu_segmented(s, x, {"input": Range(-6.0, 6.0)}), x, fracs=[PENDING])
    np.testing.assert_allclose(got, x / 2.0 * (1.0 + e), atol=1e-12)


def test_the_papers_constants() -> None:
    assert CUT == 1.7
    assert BETA == (1.25772, -0.0299154, 0.382155, -0.0519123, 0.196033, -0.0624557, 0.118029)
    v = grid(-1.7, 1.7)
    folded = segment()(v * 16.0 / 20.0)
    assert np.abs(folded - erf(v)).max() < 2.5e-2
    assert np.abs(folded - erf(v)).max() > 1e-3  # it is the paper's approximation, not a better one


def test_erf_is_exact() -> None:
    x = np.concatenate([grid(-8.0, 8.0, 20_001), [-1e300, 1e300, 0.0, 6.0, 6.001]])
    assert np.abs(erf(x) - np.array([math.erf(v) for v in x.tolist()])).max() < 1e-13


def test_relu(run: Run) -> None:
    x = grid(-9.0, 30.0)
    got = run(lambda s, x: relu(s, x, {"input": Range(-9.0, 30.0)}), x, fracs=[PENDING])
    assert np.abs(got - np.maximum(x, 0.0)).max() <= 2.0**-14


def test_clip(run: Run) -> None:
    x = grid(-50.0, 50.0)
    for part, exact in ((0, np.clip(x, -6.0, 6.0)), (1, np.maximum(x - 6.0, 0.0))):
        got = run(lambda s, x, part=part: clip(s, x, 6.0, reach=50.0)[part], x, fracs=[PENDING])
        assert np.abs(got - exact).max() <= 2.0**-13


# ---- tanh and exp ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reach", [0.2, 4.0, 11.0, 28.0, 29.0, 700.0])
def test_tanh(run: Run, reach: float) -> None:
    x = np.concatenate([grid(-reach, reach), grid(-0.2, 0.2, 101)])
    got = run(lambda s, x: tanh(s, x, {"input": Range(-reach, reach / 2)}), x, fracs=[PENDING])
    assert np.abs(got - np.tanh(x)).max() <= 1e-4


@pytest.mark.parametrize("low", [-1.0, -16.0, -40.0, -125.0, -439.0, -700.0])
def test_exp(run: Run, low: float) -> None:
    x = np.concatenate([grid(low, 0.25), grid(-4.0, 0.25)]) if low < -4.0 else grid(low, 0.25)
    got = run(lambda s, x: exp(s, x, Range(low, 0.25), scale_bits=4), x, fracs=[PENDING])
    cut = 6.2e-6 if low < -440.0 else 0.0
    assert (np.abs(got / 16.0 - np.exp(x)) <= 2.1e-6 + 3.3e-5 * np.exp(x) + cut + 2.0**-20).all()


@pytest.mark.parametrize("high", [-3.0, 0.0, 0.1, 1.0, 2.0])
def test_exp_up_to_its_highest(run: Run, high: float) -> None:
    """Also slightly above the domain, as what is rounded up may be."""
    x = np.append(grid(-40.0, high), high + 2.0**-14) if high < 0.0 else grid(-40.0, high)
    got = run(lambda s, x: exp(s, x, Range(-40.0, high)), x, fracs=[PENDING])
    assert (np.abs(got - np.exp(x)) <= 2.1e-6 + 3.3e-5 * np.exp(x) + 2.0**-16).all()


@pytest.mark.parametrize("low", [-440.0, -450.0, -3000.0])
def test_deep_domains_are_cut(run: Run, low: float) -> None:
    """Where no table reaches, whatever lies below -12 counts as that; rounds say which way was taken."""
    x = np.concatenate([grid(low, -12.0), grid(-12.0, 0.25)])
    got = run(lambda s, x: exp(s, x, Range(low, 0.25), scale_bits=4), x, fracs=[PENDING]) / 16.0
    expected = np.exp(x if low == -440.0 else np.maximum(x, -12.0))
    assert (np.abs(got - expected) <= 2.1e-6 + 3.3e-5 * expected + 2.0**-20).all()
    plan = PlanRecorder().record(lambda s: exp(s, s.accept(ghost((3,)), frac=32, width=48), Range(low, 0.25)))
    assert plan.rounds == (1 if low == -440.0 else 3)


@given(st.floats(-600.0, 0.0), st.sampled_from([0.0, 0.125, 1.0, 2.0]))
@examples(200)
def test_the_smallest_table_with_room_below(low: float, high: float) -> None:
    found, deepest = table(low, high), high - SPARE * (high - low)
    if found is None:
        assert Exponential(MOST_PERIOD_BITS, high).low > deepest
        assert low < -425.0
    else:
        assert found.high == high
        assert found.low <= deepest <= low
        assert found.period_bits == 5 or Exponential(found.period_bits - 1, high).low > deepest


def test_tables() -> None:
    periods = [getattr(table(low, 0.25), "period_bits", None) for low in (0.0, -13.0, -14.0, -42.0, -43.0, -213.0,
                                                                          -214.0, -440.0, -442.0)]
    assert periods == [5, 5, 6, 6, 7, 8, 9, 9, None]


def test_exp_refuses_high_domains() -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match="subtract the row maximum"):
        exp(s, s.public(0.0, (1,)), Range(-10.0, 3.0))


# ---- row-wise --------------------------------------------------------------------------------------------------------


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


def test_deflation_takes_the_papers_constants_where_they_hold() -> None:
    assert reciprocal.deflation(Range(5.0, 9995.0)) == (5000.0, 13)
    assert reciprocal.deflation(Range(4.9, 9995.0)) != (5000.0, 13)
    assert reciprocal.deflation(Range(5.0, 10_000.0)) != (5000.0, 13)
    assert rsqrt.deflation(Range(2.0, 5880.0)) == (2000.0, 11)
    assert rsqrt.deflation(Range(1.9, 5880.0)) != (2000.0, 11)
    assert rsqrt.deflation(Range(2.0, 5990.0)) != (2000.0, 11)


@given(st.floats(-10.0, 10.0), st.floats(0.0, 16.0))
@examples(40)
def test_deflation_converges_everywhere(start: float, octaves: float) -> None:
    """Both iterations in float64, over the domain, to the tolerance: the paper's constants are the least accurate."""
    domain = Range(2.0**start, 2.0 ** (start + octaves))
    v = np.geomspace(domain.low, domain.high, 300)
    eta, n = reciprocal.deflation(domain)
    d = v / eta
    for _ in range(n):
        d = d * (2.0 - d)
    assert np.abs(d - 1.0).max() <= 3e-4
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
        lambda d: reciprocal.reciprocal_series(s, y, d, scale_bits=4),
        lambda d: rsqrt.rsqrt_series(s, y, d, scale_bits=4),
        reciprocal.deflation,
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
    with pytest.raises(RangeError, match="does not cover"):
        reciprocal.deflation(Range(1e-30, 1.0))


@pytest.mark.parametrize("protocol", [gelu_series, gelu_segmented, tanh, relu])
@pytest.mark.parametrize("at, message", [
    ({}, "needs the range of 'input'"),
    ({"input": Range(1.0, -1.0)}, "low <= high"),
    ({"input": Range(-math.inf, 1.0)}, "finite"),
])
def test_bad_ranges(protocol: object, at: dict[str, Range], message: str) -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match=message):
        protocol(s, s.public(1.0, (3,)), at)  # type: ignore[operator]
