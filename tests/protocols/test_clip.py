"""Cuts at a limit, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from protocols_lab import PENDING, Run, grid

from secformer.protocols.clip import clip, floor_at
from secformer.protocols.ranges import Range


def test_clip(run: Run) -> None:
    x = grid(-50.0, 50.0)
    for part, exact in ((0, np.clip(x, -6.0, 6.0)), (1, np.maximum(x - 6.0, 0.0))):
        got = run(lambda s, x, part=part: clip(s, x, 6.0, reach=50.0)[part], x, fracs=[PENDING])
        assert np.abs(got - exact).max() <= 2.0**-13


@pytest.mark.parametrize("reach, unit", [(3e4, 2.0**-16), (8e4, 2.0**-15), (1e6, 2.0**-11)])
def test_clip_any_reach(run: Run, reach: float, unit: float) -> None:
    """Exact to two units of the fractional bits that a comparison of 33 bits leaves."""
    x = np.concatenate([grid(-reach, reach), grid(-8.0, 8.0)])
    for part, exact in ((0, np.clip(x, -6.0, 6.0)), (1, np.maximum(x - 6.0, 0.0))):
        got = run(lambda s, x, part=part: clip(s, x, 6.0, reach=reach)[part], x, fracs=[16])
        assert np.abs(got - exact).max() <= 4.0 * unit + 2.0**-16


@pytest.mark.parametrize("low, unit", [(-30.0, 2.0**-16), (-3e4, 2.0**-16), (-8e4, 2.0**-15), (-1e6, 2.0**-11)])
def test_floor_at_any_depth(run: Run, low: float, unit: float) -> None:
    """Exact to two units of the fractional bits that a comparison of 33 bits leaves."""
    x = np.concatenate([grid(low, 1.0), grid(-16.0, 1.0)])
    got = run(lambda s, x: floor_at(s, x, -15.0, Range(low, 1.0)), x, fracs=[PENDING if low > -1e3 else 16])
    assert np.abs(got - np.maximum(x, -15.0)).max() <= 2.0 * unit + 2.0**-16
