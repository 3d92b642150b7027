"""Cuts at a limit, against float64."""

from __future__ import annotations

import numpy as np
from protocols_lab import PENDING, Run, grid

from secformer.protocols.clip import clip


def test_clip(run: Run) -> None:
    x = grid(-50.0, 50.0)
    for part, exact in ((0, np.clip(x, -6.0, 6.0)), (1, np.maximum(x - 6.0, 0.0))):
        got = run(lambda s, x, part=part: clip(s, x, 6.0, reach=50.0)[part], x, fracs=[PENDING])
        assert np.abs(got - exact).max() <= 2.0**-13
