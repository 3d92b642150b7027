"""Fits of Fourier series: as near as they say, no larger than the masks allow, and quick."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples

from secformer.mpc.errors import RangeError
from secformer.protocols import fits
from secformer.protocols.gelu import gelu_fit
from secformer.protocols.reciprocal import reciprocal_fit
from secformer.protocols.rsqrt import rsqrt_fit


@given(st.integers(1, 4), st.integers(1, 3), st.floats(-3.0, 3.0))
@examples(30)
def test_a_series_is_found_again(period_bits: int, harmonic: int, phase: float) -> None:
    """What is a Fourier series of that period comes back to rounding, over a whole period less a little."""
    w = 2.0 * math.pi * harmonic / 2.0**period_bits
    half = 0.49 * 2.0**period_bits
    found = fits.fit(lambda x: 0.5 + np.cos(w * x + phase), -half, half, period_bits=period_bits, harmonics=4)
    x = np.linspace(-half, half, 500)
    assert np.abs(found(x) - 0.5 - np.cos(w * x + phase)).max() < 1e-5
    assert found.cos[0] == pytest.approx(0.5, abs=1e-4)


def test_parity() -> None:
    even = fits.fit(np.abs, -2.0, 2.0, period_bits=3, harmonics=12, sin=False)
    odd = fits.fit(np.tanh, -2.0, 2.0, period_bits=3, harmonics=12, cos=False)
    assert set(even.sin) == {0.0} and any(even.cos)
    assert set(odd.cos[1:]) == {0.0} and any(odd.sin)
    x = np.linspace(-2.0, 2.0, 101)
    np.testing.assert_allclose(even(x), even(-x), atol=1e-12)
    np.testing.assert_allclose(odd(x) - odd.cos[0], -(odd(-x) - odd.cos[0]), atol=1e-12)


def test_linear_term_is_kept_out_of_the_fit() -> None:
    found = fits.fit(lambda x: 3.0 * x + np.cos(np.pi * x), -0.9, 0.9, period_bits=1, harmonics=3, linear=3.0)
    assert found.linear == 3.0
    assert found.cos[1] == pytest.approx(1.0, abs=1e-5)
    assert np.abs(found.sin).max() < 1e-4


def test_the_ridge_keeps_coefficients_small() -> None:
    """Half a period of an exponential: without the ridge, the coefficients would be beyond any use."""
    found = fits.fit(np.exp, -1.0, 1.0, period_bits=2, harmonics=40)
    size = math.sqrt(sum(c * c for c in (*found.cos, *found.sin)))
    assert size * fits.NOISE * 2.0**-20 < 1e-5
    assert size < 20.0


def test_magnitude_bounds_the_whole_period() -> None:
    """A value outside of the domain may be wrong, but it must not wrap the window."""
    for found in (gelu_fit(-40.0, 12.0).times(16.0), rsqrt_fit(1.0, 224.0, 7, 0), reciprocal_fit(0.9, 130.0, 10)):
        x = np.linspace(0.0, 2.0**found.series.period_bits, 20_001)
        assert np.abs(found.series(x)).max() < 2.0**found.series.magnitude


def test_times_scales() -> None:
    found = gelu_fit(-8.0, 8.0)
    x = np.linspace(-8.0, 8.0, 100)
    np.testing.assert_allclose(found.times(8.0).series(x), 8.0 * found.series(x), rtol=1e-12, atol=1e-12)
    assert found.times(2.0**12).series.magnitude > 12


@pytest.mark.parametrize("low, high", [(1.0, 1.0), (2.0, 1.0), (0.0, 4.0), (-math.inf, 0.0), (0.0, math.nan)])
def test_impossible_domains(low: float, high: float) -> None:
    with pytest.raises(RangeError, match="must not be empty and must be shorter than its period 4, got"):
        fits.fit(np.exp, low, high, period_bits=2, harmonics=4)


def test_what_is_reachable_is_told() -> None:
    with pytest.raises(RangeError, match=r"error of 1e-12 on \[-1, 1\]; reachable: \d.* with \d+ harmonics"):
        fits.choose(np.abs, -1.0, 1.0, tolerance=1e-12, counts=(4, 8))
    best = fits.choose(np.abs, -1.0, 1.0, tolerance=1e-12, counts=(4, 8), strict=False)
    assert best.series.harmonics == 8 and 1e-12 < best.error < 0.1


@pytest.mark.slow
def test_fits_of_a_large_model_are_quick() -> None:
    """Twelve layers with ranges of their own: a few seconds at most (generous; one core)."""
    started = time.process_time()
    for i in range(12):
        gelu_fit(-9.0 - i, 12.0 + i)
        rsqrt_fit(224.0 / 2.0 ** (i / 2 + 1), 224.0, 7, 0)
    assert time.process_time() - started < 20.0
