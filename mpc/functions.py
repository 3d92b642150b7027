"""Functions that one masked opening evaluates, described: a Fourier series and the exponential.

Facts alone, for whoever fits, plans or evaluates them; how two parties do it is in `ops/series` and `ops/exponential`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.kernels.tables import STEP_BITS

LEAST_BITS = 3  # fewest bits in which a turn is opened: rounding to the nearest quarter of a turn takes three

# Constants of the exponential:
MASK_FRAC = 41      # fractional bits of the dealer's table: e^16 times its rounding is 2^-19
PUBLIC_FRAC = 18    # fractional bits of the public factor
HIGHEST = 2.0       # the upper end of a domain is at most this
SLACK = 2.0**-4     # room above the domain, so that rounding x does not lead out of it
LOW_SLACK = 2.0**-8  # room below the domain, for the same reason
LEAST_PERIOD_BITS = STEP_BITS + 1


@dataclass(frozen=True)
class Series:
    """f(x) = linear x + sum over k = 0..K of cos[k] cos(k w x) + sin[k] sin(k w x), w = 2 pi / 2^period_bits.

    `cos` and `sin` have K + 1 entries (sin[0] counts for nothing); |f| < 2^magnitude on its domain. The dealer's
    cosines have `mask_frac` fractional bits, coefficients times public cosines `public_frac`: together those of the
    result, whose window is what the dealer's words must be right in, so fewer make them shorter. A guarded session
    checks x for the domain, if there is one.
    """

    period_bits: int
    cos: tuple[float, ...]
    sin: tuple[float, ...]
    linear: float = 0.0
    magnitude: int = 8
    mask_frac: int = 20
    public_frac: int = 18
    domain: tuple[float, float] | None = None

    @property
    def frac(self) -> int:
        """Fractional bits of the result."""
        return self.mask_frac + self.public_frac

    @property
    def harmonics(self) -> int:
        return len(self.cos) - 1

    @cached_property
    def waves(self) -> tuple[np.ndarray, np.ndarray]:
        """The coefficients of the cosines and of the sines from the first harmonic on, (K,) each."""
        return np.array(self.cos[1:], dtype=np.float64), np.array(self.sin[1:], dtype=np.float64)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The series in float64, for the twin and for measuring fits."""
        turn = np.exp((2.0j * np.pi / 2.0**self.period_bits) * x)
        waves = np.zeros_like(turn)  # by Horner's rule: one exponential for all harmonics
        for cos, sin in zip(self.cos[:0:-1], self.sin[:0:-1], strict=True):
            waves += complex(cos, -sin)
            waves *= turn
        return np.asarray(self.linear * x + self.cos[0] + waves.real)

    @property
    def finest(self) -> int:
        """The most fractional bits of x with which the slope is an integer in the result."""
        numerator, denominator = abs(self.linear).as_integer_ratio()
        return self.frac - denominator.bit_length() + (numerator & -numerator).bit_length()

    def linear_factor(self, frac: int) -> int:
        """The slope as an integer with the fractional bits that the result has and x, with `frac` of them, lacks.

        Raises RangeError when the slope is not representable there.
        """
        scaled = self.linear * 2.0 ** (self.frac - frac)
        if scaled != round(scaled):
            raise RangeError(
                f"a series' linear term must be a multiple of 2^{frac - self.frac} for x with {frac} fractional bits, "
                f"got {self.linear}; use a multiple of a power of two, or settle x first"
            )
        return round(scaled)

    def needed_width(self, fixed: FixedPoint, frac: int) -> int:
        """Bits of x, given with `frac` fractional bits, that the linear term needs to be right in the result."""
        if not self.linear:
            return 0
        factor = self.linear_factor(frac)
        return fixed.window(self.frac, self.magnitude) - ((factor & -factor).bit_length() - 1)


@dataclass(frozen=True)
class Exponential:
    """e^x on the domain [high + 17/256 - 2^period_bits + 16, high]; anywhere else the result is arbitrary.

    Raises RangeError for a high end above 2 or below 0, or a period below 32.
    """

    period_bits: int
    high: float

    frac: ClassVar[int] = MASK_FRAC + PUBLIC_FRAC  # fractional bits of the result
    magnitude: ClassVar[int] = 3                   # results stay below 2^3

    def __post_init__(self) -> None:
        if not 0.0 <= self.high <= HIGHEST or self.period_bits < LEAST_PERIOD_BITS:
            raise RangeError(f"a masked exponential takes a domain that ends in [0, {HIGHEST:g}] and a period of 32 or "
                             f"more, got {self.high:g} and 2^{self.period_bits}; subtract the row maximum first")

    @property
    def low(self) -> float:
        """The lower end of the domain."""
        return self.high + SLACK + LOW_SLACK - 2.0**self.period_bits + 2.0**STEP_BITS


class Opening(NamedTuple):
    """How much of x is opened, in bits: all of them, the fractional ones, and those above the period."""

    bits: int
    keep: int
    spare: int = 0


def opening_bits(period_bits: int, frac: int, spare: int = 0) -> Opening:
    """The opening of x with `frac` fractional bits: at least 16 of them where x has them, and as many more as the whole
    bytes give, of which up to `spare` go above the period instead."""
    least = period_bits + min(frac, 16)
    whole = -(-least // 8) * 8
    spare = max(0, min(spare, whole - least))
    keep = min(frac, whole - period_bits - spare)
    return Opening(period_bits + keep + spare, keep, spare)
