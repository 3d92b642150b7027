"""exp over its whole domain, against float64, and the tables that it takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples
from protocols_lab import PENDING, Run, grid

from secformer.mpc.errors import RangeError
from secformer.mpc.functions import Exponential
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.protocols.exp import MOST_PERIOD_BITS, SPARE, exp, table
from secformer.protocols.ranges import Range


@pytest.mark.parametrize("low", [-1.0, -16.0, -40.0, -125.0, -439.0, -700.0])
def test_exp(run: Run, low: float) -> None:
    x = np.concatenate([grid(low, 0.25), grid(-4.0, 0.25)]) if low < -4.0 else grid(low, 0.25)
    got = run(lambda s, x: exp(s, x, Range(low, 0.25), scale_bits=4), x, fracs=[PENDING])
    cut = 3.1e-7 if low < -440.0 else 0.0
    assert (np.abs(got / 16.0 - np.exp(x)) <= 2.1e-6 + 3.3e-5 * np.exp(x) + cut + 2.0**-20).all()


@pytest.mark.parametrize("high", [-3.0, 0.0, 0.1, 1.0, 2.0])
def test_exp_up_to_its_highest(run: Run, high: float) -> None:
    """Also slightly above the domain, as what is rounded up may be."""
    x = np.append(grid(-40.0, high), high + 2.0**-14) if high < 0.0 else grid(-40.0, high)
    got = run(lambda s, x: exp(s, x, Range(-40.0, high)), x, fracs=[PENDING])
    assert (np.abs(got - np.exp(x)) <= 2.1e-6 + 3.3e-5 * np.exp(x) + 2.0**-16).all()


@pytest.mark.parametrize("low, rounding", [(-440.0, 0.0), (-450.0, 0.0), (-3000.0, 0.0), (-3e4, 0.0), (-8e4, 2.0**-14),
                                           (-1e6, 2.0**-10)])
def test_deep_domains_are_cut(run: Run, low: float, rounding: float) -> None:
    """Where no table reaches, whatever lies below -15 counts as that; rounds say which way was taken. The deepest
    domains leave fewer fractional bits to x."""
    x = np.concatenate([grid(low, -15.0), grid(-15.0, 0.25)])
    frac = PENDING if low > -(2.0**13) else 16  # pending values of the labs have 48 bits, which hold less
    got = run(lambda s, x: exp(s, x, Range(low, 0.25), scale_bits=4), x, fracs=[frac]) / 16.0
    expected = np.exp(x if low == -440.0 else np.maximum(x, -15.1836))
    assert (np.abs(got - expected) <= 2.1e-6 + (3.3e-5 + rounding) * expected + 2.0**-20).all()
    plan = PlanRecorder().record(lambda s: exp(s, s.accept(ghost((3,)), frac=32, width=64), Range(low, 0.25)))
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
