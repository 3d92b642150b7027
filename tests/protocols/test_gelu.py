"""GeLU over its whole domain, by series and by segments, and ReLU, against float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples
from protocols_lab import PENDING, Run, grid, worst

from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.session import Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.protocols.gelu import BETA, CUT, erf, gelu_exact, gelu_fit, gelu_segmented, gelu_series, segment
from secformer.protocols.quantities import opened
from secformer.protocols.ranges import Range

domains = st.tuples(st.floats(-60.0, 0.0), st.floats(0.0, 60.0)).filter(lambda d: d[1] > d[0])


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
    np.testing.assert_allclose(got, x / 2.0 * (1.0 + e), atol=1e-5)  # the argument's factor has 12 fractional bits


@pytest.mark.parametrize("reach, width, rounds, size", [(4.0, 48, 6, 18), (26.0, 48, 6, 18), (45.0, 48, 6, 18),
                                                        (60.0, 48, 6, 20),
                                                        (4.0, 40, 7, 21), (4.0, 64, 6, 18)])
def test_the_price_of_segments(reach: float, width: int, rounds: int, size: int) -> None:
    """Where words are too short for the folded argument, a copy of x settles."""
    def program(s: PlanRecorder) -> None:
        y = gelu_segmented(s, s.accept(ghost((10,)), frac=32, width=width), {"input": Range(-reach, reach)})
        assert y.width == 64 and y.frac == 32

    plan = PlanRecorder().record(program)
    assert (plan.rounds, plan.bytes / 20) == (rounds, size)


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


@pytest.mark.parametrize("protocol", [gelu_series, gelu_segmented])
@pytest.mark.parametrize("at, message", [
    ({}, "needs the range of 'input'"),
    ({"input": Range(1.0, -1.0)}, "low <= high"),
    ({"input": Range(-math.inf, 1.0)}, "finite"),
])
def test_bad_ranges(protocol: object, at: dict[str, Range], message: str) -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match=message):
        protocol(s, s.public(1.0, (3,)), at)  # type: ignore[operator]


@given(st.floats(2.0, 100.0), st.floats(2.0, 100.0))
@examples(12)
def test_gelu_fits_reach_their_tolerance(below: float, above: float) -> None:
    found = gelu_fit(-math.ceil(below / 4) * 4.0, math.ceil(above / 4) * 4.0)
    assert worst(found, gelu_exact) <= found.error <= 1e-4
    assert 2.0**found.series.period_bits > found.high - found.low
    fast = gelu_fit(found.low, found.high, 12)
    assert worst(fast, gelu_exact) <= fast.error <= 2.0**-12
    assert fast.series.harmonics <= found.series.harmonics


@pytest.mark.parametrize("frac", [12, 16])
@given(st.floats(1.0, 130.0), st.floats(1.0, 130.0))
@examples(12)
def test_a_product_of_the_magnitude_that_gelu_opens_costs_no_round(frac: int, below: float, above: float) -> None:
    fixed, at = FixedPoint(frac), {"input": Range(-below, above)}
    width = fixed.window(2 * frac, opened(gelu_series, fixed, at))

    def program(s: Session, x: Any) -> None:
        gelu_series(s, s.accept(x, frac=2 * frac, width=width), at)

    if max(below, above) <= 112.0:
        assert PlanRecorder(fixed).record(program, ghost((5,))).rounds == 1


@pytest.mark.parametrize(("frac", "reach", "bits"), [(16, 13.0, 40), (16, 29.0, 48), (12, 13.0, 32), (12, 29.0, 32),
                                                     (12, 40.0, 40), (12, 120.0, 32)])
def test_what_gelu_takes(frac: int, reach: float, bits: int) -> None:
    fixed = FixedPoint(frac)
    assert fixed.window(2 * frac, opened(gelu_series, fixed, {"input": Range(-reach, reach)})) == bits
    assert opened(gelu_segmented, fixed, {"input": Range(-reach, reach)}) == 14
