"""LayerNorm, by series and by Goldschmidt, over variances from tiny to large."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples
from protocols_lab import PENDING, Run

from secformer.mpc.errors import RangeError
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.protocols.layernorm import layernorm_exact, layernorm_goldschmidt, layernorm_series
from secformer.protocols.ranges import Range, Site

EPS = 1e-12
BOTH = [layernorm_series, layernorm_goldschmidt]
Case = tuple[np.ndarray, np.ndarray, np.ndarray, Site]


def case(seed: int, n: int, c: int, low: float, high: float, mean: float) -> Case:
    """Rows whose variances cover [low, high] exactly, gamma, beta, and the range with a profile's margin."""
    rng = np.random.default_rng(seed)
    x = layernorm_exact(rng.normal(size=(n, c)), 0.0) * np.sqrt(np.geomspace(low, high, n))[:, None]
    x += mean * rng.normal(size=(n, 1))
    return x, rng.uniform(-2.0, 2.0, c), rng.normal(size=c), {"variance": Range(low / 1.5, high * 1.5)}


def program(protocol: Callable[..., Share], at: Site, eps: float = EPS) -> Callable[..., Share]:
    return lambda s, x, gamma, beta: protocol(s, x, gamma, beta, eps, at)


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("c, low, high", [(768, 0.3, 3.0), (384, 0.003, 0.03), (128, 0.1, 20.0), (1024, 1.0, 60.0),
                                          (100, 3.0, 3000.0), (2, 0.5, 2.0),
                                          (768, 2.0, 5880.0), (1024, 10.0, 5000.0)])
def test_layernorm(run: Run, protocol: Callable[..., Share], c: int, low: float, high: float) -> None:
    x, gamma, beta, at = case(1, 24, c, low, high, 0.5)
    got = run(program(protocol, at), x, gamma, beta, fracs=[PENDING, 16, 16])
    assert np.abs(got - layernorm_exact(x, EPS) * gamma - beta).max() <= 1e-3


@pytest.mark.parametrize("low, high, bound", [(0.3, 3.0, 1.5e-4), (0.003, 0.03, 1.5e-4), (0.1, 100.0, 2e-4)])
def test_layernorm_series_is_near_the_last_place(run: Run, low: float, high: float, bound: float) -> None:
    x, gamma, beta, at = case(2, 24, 384, low, high, 0.1)
    got = run(program(layernorm_series, at), x, gamma, beta, fracs=[PENDING, 16, 16])
    assert np.abs(got - layernorm_exact(x, EPS) * gamma - beta).max() <= bound


@given(st.integers(1, 9), st.integers(2, 200), st.floats(-8.0, 6.0), st.floats(0.0, 9.0), st.integers(0, 99))
@examples(25)
@pytest.mark.parametrize("protocol", BOTH)
def test_layernorm_any_shape(
    twin: Run, protocol: Callable[..., Share], n: int, c: int, start: float, octaves: float, seed: int
) -> None:
    x, gamma, beta, at = case(seed, n, c, 2.0**start, 2.0 ** (start + octaves), 1.0)
    got = twin(program(protocol, at), x, gamma, beta, fracs=[PENDING, 16, 16])
    exact = layernorm_exact(x, EPS) * gamma
    assert np.abs(got - exact - beta).max() <= 5e-4 * max(1.0, np.abs(exact).max())


def test_eps_counts(twin: Run) -> None:
    """A large eps changes the answer, as it does in plain LayerNorm."""
    x, gamma, beta, at = case(3, 6, 16, 0.5, 2.0, 0.0)
    got = twin(program(layernorm_series, at, eps=0.25), x, gamma, beta, fracs=[PENDING, 16, 16])
    np.testing.assert_allclose(got, layernorm_exact(x, 0.25) * gamma + beta, atol=2e-4)
    assert np.abs(got - layernorm_exact(x, 0.0) * gamma - beta).max() > 0.01


def test_the_mean_is_taken_off_exactly(run: Run) -> None:
    """A constant that is large beside the deviations does not show."""
    x, gamma, beta, at = case(4, 8, 96, 0.2, 2.0, 0.0)
    got = run(program(layernorm_series, at), x + 200.0, gamma, beta, fracs=[PENDING, 16, 16])
    assert np.abs(got - layernorm_exact(x, EPS) * gamma - beta).max() <= 2e-4


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("at, message", [
    ({}, "needs the range of 'variance'"), ({"variance": Range(-1.0, 1.0)}, "must be positive"),
    ({"variance": Range(0.0, 0.0)}, "must be positive"), ({"variance": Range(2.0, 1.0)}, "low <= high"),
])
def test_bad_ranges(protocol: Callable[..., Share], at: Site, message: str) -> None:
    s = PlainSession()
    x, gamma, beta, _ = case(5, 2, 4, 1.0, 1.0, 0.0)
    with pytest.raises(RangeError, match=message):
        protocol(s, s.accept(x), s.accept(gamma), s.accept(beta), EPS, at)
