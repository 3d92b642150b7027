"""Ranges that call sites meet: periods, harmonics, windows, deflation and iteration counts are chosen by them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """low <= value <= high, as measured (and widened by the profile's margin)."""

    low: float
    high: float

    @property
    def reach(self) -> float:
        """The largest absolute value inside."""
        return max(abs(self.low), abs(self.high))


Site = Mapping[str, Range]  # quantity -> its range at one call site


def bits(value: float) -> int:
    """The least integer m with |value| <= 2^m."""
    mantissa, exponent = math.frexp(abs(value))
    return exponent - (mantissa == 0.5)


def rounded_out(r: Range, step: float) -> Range:
    """The ends moved outward to multiples of `step`, so that call sites with similar ranges share their fits."""
    return Range(math.floor(r.low / step) * step, math.ceil(r.high / step) * step)
