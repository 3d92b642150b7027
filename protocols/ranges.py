"""Ranges that call sites meet: periods, harmonics, windows, deflation and iteration counts are chosen by them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from secformer.mpc.errors import RangeError


@dataclass(frozen=True)
class Range:
    """low <= value <= high, as measured (and widened by the profile's margin)."""

    low: float
    high: float

    @property
    def reach(self) -> float:
        """The largest absolute value inside."""
        return max(abs(self.low), abs(self.high))

    def widened(self, factor: float) -> Range:
        """Both ends moved out so that the length grows by `factor` around the same centre."""
        more = (factor - 1.0) * (self.high - self.low) / 2.0
        return Range(self.low - more, self.high + more)


Site = Mapping[str, Range]  # quantity -> its range at one call site


def measured(at: Site, quantity: str) -> Range:
    """The range of a quantity that a protocol needs. Raises RangeError where it is missing or no interval of reals."""
    if quantity not in at:
        raise RangeError(f"this protocol needs the range of {quantity!r} at its call site, got {sorted(at)}; "
                         f"measure the model again: secformer profile")
    found = at[quantity]
    if not (math.isfinite(found.low) and math.isfinite(found.high) and found.low <= found.high):
        raise RangeError(f"the range of {quantity!r} must be finite with low <= high, got {found.low} to {found.high}; "
                         f"measure the model again: secformer profile")
    return found


def positive(at: Site, quantity: str) -> Range:
    """`measured`, for a quantity that must not be negative and not always zero. Raises RangeError otherwise."""
    found = measured(at, quantity)
    if found.low < 0.0 or found.high <= 0.0:
        raise RangeError(f"the range of {quantity!r} must be positive, got {found.low:g} to {found.high:g}; "
                         f"check the model's weights, then measure it again")
    return found


def bits(value: float) -> int:
    """The least integer m with |value| <= 2^m."""
    mantissa, exponent = math.frexp(abs(value))
    return exponent - (mantissa == 0.5)


def rounded_out(r: Range, step: float) -> Range:
    """The ends moved outward to multiples of `step`, so that call sites with similar ranges share their fits."""
    return Range(math.floor(r.low / step) * step, math.ceil(r.high / step) * step)
