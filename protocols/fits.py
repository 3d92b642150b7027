"""Fits of Fourier series: the coefficients that `Session.series` evaluates from one opening.

A function that is not periodic is fitted on its domain only; what the series does in the rest of the period is free,
which is what makes few harmonics enough (Fourier extension). Least squares on Chebyshev points of the domain, with a
ridge that has a meaning: the dealer's cosines are rounded, which adds noise in proportion to the root sum of squares of
the coefficients, and the ridge is that noise's variance. So no fit buys accuracy that the masks would take away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from secformer.mpc.errors import RangeError
from secformer.mpc.functions import Series
from secformer.protocols.papers import cite

Function = Callable[[np.ndarray], np.ndarray]

NOISE = 0.3            # standard deviation, in units of a mask's last place, that a coefficient of 1 adds to a result
Precision = tuple[int, int]  # fractional bits of the dealer's cosines, and of coefficients times public ones
WIDE = 20, 18          # precision by default: results below 2^8 take six bytes
HARMONICS = (*range(6, 32, 2), *range(32, 64, 4), *range(64, 128, 8), 128, 160, 192, 256)


@dataclass(frozen=True)
class Fit:
    """A series, the domain that it was fitted on, and its largest error there (relative where so asked).

    error      of the series itself and, three standard deviations wide, of the dealer's rounded cosines
    """

    series: Series
    low: float
    high: float
    error: float

    @property
    def guarded(self) -> Series:
        """The series, with its domain for a guarded session to check."""
        return replace(self.series, domain=(self.low, self.high))

    def times(self, factor: float) -> Fit:
        """The same fit of `factor` times the function (its relative error stays)."""
        f = self.series
        f = replace(f, cos=tuple(c * factor for c in f.cos), sin=tuple(c * factor for c in f.sin),
                    linear=f.linear * factor)
        return replace(self, series=replace(f, magnitude=_magnitude(f, self.low, self.high)))


@cite("huybrechs2010", "least-squares Fourier extension")
def fit(
    fn: Function, low: float, high: float, *, period_bits: int, harmonics: int,
    cos: bool = True, sin: bool = True, linear: float = 0.0, relative: bool = False,
    precision: Precision = WIDE,
) -> Series:
    """The series with that period and that many harmonics which is nearest to fn on [low, high].

    cos, sin   which terms to use: only cosines for an even function, only sines for an odd one
    linear     slope of the linear term that is added to the periodic part (not fitted)
    relative   weigh errors by 1 / |fn|
    precision  fractional bits of the two factors of a result (see `Series`)

    Raises RangeError where the domain is empty or longer than the period.
    """
    period = 2.0**period_bits
    if not (math.isfinite(low) and math.isfinite(high) and low < high and high - low < period):
        raise RangeError(f"the domain of a series must not be empty and must be shorter than its period {period:g}, "
                         f"got [{low:g}, {high:g}]; take a longer period")
    n = max(8 * harmonics, 256)
    x = (low + high) / 2.0 - (high - low) / 2.0 * np.cos(np.pi * (np.arange(n) + 0.5) / n)
    y = fn(x)
    weight = 1.0 / np.abs(y) if relative else np.ones(n)
    basis = _basis(x, period, harmonics, cos, sin)
    a = basis * weight[:, None]
    gram = a.T @ a / n
    gram[np.diag_indices_from(gram)] += (NOISE * 2.0 ** -precision[0]) ** 2 * np.mean(weight**2)
    c = np.linalg.solve(gram, a.T @ ((y - linear * x) * weight) / n)
    split = harmonics + 1 if cos else 1
    none = (0.0,) * harmonics
    found = Series(
        period_bits,
        tuple(c[:split].tolist()) if cos else (float(c[0]), *none),
        (0.0, *c[split:].tolist()) if sin else (0.0, *none),
        linear,
        mask_frac=precision[0],
        public_frac=precision[1],
    )
    return replace(found, magnitude=_magnitude(found, low, high))


def error(series: Series, fn: Function, low: float, high: float, *, relative: bool = False) -> float:
    """Largest error of a series on [low, high], on a grid finer than its highest harmonic, dense at both ends, with
    three standard deviations of the noise that rounded cosines add to it."""
    n = 24 * series.harmonics + 1000
    ends = (low + high) / 2.0 - (high - low) / 2.0 * np.cos(np.pi * np.arange(n + 1) / n)
    x = np.concatenate([ends, np.linspace(low, high, n)])
    y = fn(x)
    noise = 3.0 * NOISE * 2.0**-series.mask_frac * math.sqrt(sum(c * c for c in (*series.cos[1:], *series.sin)))
    wrong = np.abs(series(x) - y) + noise
    return float((wrong / np.abs(y) if relative else wrong).max())


def choose(
    fn: Function, low: float, high: float, *, tolerance: float, periods: Sequence[int] = (),
    counts: Sequence[int] = HARMONICS, cos: bool = True, sin: bool = True, linear: float = 0.0, relative: bool = False,
    extend: float | None = None, strict: bool = True, precision: Precision = WIDE,
) -> Fit:
    """The fit with the fewest harmonics, then the shortest period, that reaches the tolerance on [low, high].

    periods    bits of the periods to try; default: the two smallest that leave an eighth of the period free
    extend     with a fraction of the period: move `low` down so that the domain fills it, where fn goes on (as exp does
               towards 0), so that a value below the domain meets the function and not the fit's free part
    strict     where nothing reaches the tolerance, raise RangeError that says what was reachable; else return the best
    """
    best: Fit | None = None
    for count in counts:
        for period in periods or _periods(high - low):
            start = min(low, high - extend * 2.0**period) if extend else low
            found = fit(fn, start, high, period_bits=period, harmonics=count, cos=cos, sin=sin, linear=linear,
                        relative=relative, precision=precision)
            candidate = Fit(found, start, high, error(found, fn, start, high, relative=relative))
            if candidate.error <= tolerance:
                return candidate
            best = candidate if best is None or candidate.error < best.error else best
    if best and not strict:
        return best
    reached = f"{best.error:.2g} with {best.series.harmonics} harmonics of period 2^{best.series.period_bits}" \
        if best else "nothing: no harmonics were allowed"
    raise RangeError(f"no series reaches an error of {tolerance:g} on [{low:g}, {high:g}]; reachable: {reached}. "
                     f"Narrow the range profile or accept a larger error")


def _magnitude(series: Series, low: float, high: float) -> int:
    """Bits that hold the series over its whole period, so that no value outside of the domain can wrap a window."""
    x = 2.0**series.period_bits * np.arange(8 * series.harmonics) / (8 * series.harmonics)
    peak = np.abs(replace(series, linear=0.0)(x)).max() + abs(series.linear) * max(abs(low), abs(high))
    return max(_free(series.frac), math.floor(math.log2(max(1.0, peak))) + 1)


def _free(frac: int) -> int:
    """Results below 2^this are settled in whole bytes that they take anyway: no need to promise less."""
    return 8 * -(-(frac + 3) // 8) - frac - 2


def _periods(length: float) -> Iterator[int]:
    first = max(0, math.ceil(math.log2(length / 0.875)))
    yield from (first, first + 1)


def _basis(x: np.ndarray, period: float, harmonics: int, cos: bool, sin: bool) -> np.ndarray:
    """Columns 1, cos(k w x), sin(k w x): (n, 1 + K cos + K sin)."""
    angles = np.outer(x, (2.0 * np.pi / period) * np.arange(1, harmonics + 1))
    columns = [np.ones((x.size, 1))]
    if cos:
        columns.append(np.cos(angles))
    if sin:
        columns.append(np.sin(angles))
    return np.concatenate(columns, axis=1)
