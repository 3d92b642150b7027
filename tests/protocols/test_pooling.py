"""The largest value of each feature over a text's tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from protocols_lab import PENDING, Run

from secformer.mpc.errors import RangeError
from secformer.mpc.sessions.plain import PlainSession
from secformer.protocols.pooling import MAXIMUM
from secformer.protocols.ranges import Range


@pytest.mark.parametrize("tokens", [1, 2, 5, 8])
@pytest.mark.parametrize(("reach", "frac"), [(0.1, 16), (7.9, PENDING), (8.0, 16), (300.0, 16)])
def test_maximum(run: Run, tokens: int, reach: float, frac: int) -> None:
    x = np.random.default_rng(tokens).uniform(-reach, reach, (3, tokens, 7))
    x[0], x[1, 0], x[2, -1] = -reach, reach, -reach
    got = run(lambda s, x: MAXIMUM.protocol(s, x, {"input": Range(-reach, reach)}), x, fracs=[frac])
    assert got.shape == (3, 7)
    np.testing.assert_allclose(got, x.max(axis=1), rtol=0.0, atol=2.0**-14)


def test_the_exact_one() -> None:
    s, x = PlainSession(), np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(s.values(MAXIMUM.exact(s, s.accept(x), {})), x.max(axis=1))


@pytest.mark.parametrize("at, message", [
    ({}, "needs the range of 'input'"),
    ({"input": Range(-math.inf, 1.0)}, "finite"),
])
def test_bad_ranges(at: dict[str, Range], message: str) -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match=message):
        MAXIMUM.protocol(s, s.public(1.0, (2, 3, 4)), at)
