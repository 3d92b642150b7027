"""tanh over its whole domain, against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from protocols_lab import PENDING, Run, grid, worst

from secformer.mpc.errors import RangeError
from secformer.mpc.sessions.plain import PlainSession
from secformer.protocols.ranges import Range
from secformer.protocols.tanh import tanh, tanh_fit


@pytest.mark.parametrize("reach", [0.2, 4.0, 11.0, 28.0, 29.0, 700.0])
def test_tanh(run: Run, reach: float) -> None:
    x = np.concatenate([grid(-reach, reach), grid(-0.2, 0.2, 101)])
    got = run(lambda s, x: tanh(s, x, {"input": Range(-reach, reach / 2)}), x, fracs=[PENDING])
    assert np.abs(got - np.tanh(x)).max() <= 1e-4


@pytest.mark.parametrize("at, message", [
    ({}, "needs the range of 'input'"),
    ({"input": Range(1.0, -1.0)}, "low <= high"),
    ({"input": Range(-math.inf, 1.0)}, "finite"),
])
def test_bad_ranges(at: dict[str, Range], message: str) -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match=message):
        tanh(s, s.public(1.0, (3,)), at)


@pytest.mark.parametrize("reach", [2.0, 5.0, 10.0, 28.0])
def test_tanh_fits_reach_their_tolerance(reach: float) -> None:
    found = tanh_fit(reach)
    assert worst(found, np.tanh) <= found.error <= 3e-5
