"""exp by repeated squaring, against its formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
from protocols_lab import PENDING, Run, limit

from secformer.mpc.errors import RangeError
from secformer.mpc.sessions.plain import PlainSession
from secformer.protocols.limit import exp_limit
from secformer.protocols.ranges import Range


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
