"""Ranges that call sites meet: periods, harmonics, windows, deflation and iteration counts are chosen by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from secformer.mpc.errors import RangeError
from secformer.mpc.guarding import BEYOND
from secformer.mpc.session import Session
from secformer.mpc.shares import Share

ROOM = 32.0    # of a range's length, that a guarded truncation opens
MOST_ROOM = 7  # bits: a byte's, less the one that made it necessary


@dataclass(frozen=True)
class Range:
    """low <= value <= high, as measured (and widened by the profile's margin)."""

    low: float
    high: float

    @property
    def reach(self) -> float:
        """The largest absolute value inside."""
        return max(abs(self.low), abs(self.high))


def with_air(r: Range) -> Range:
    """What a guard checks for values that lie in the range: a little more at both ends, so that none of them is marked.
    Windows must hold this much."""
    air = BEYOND * (r.high - r.low)
    return Range(r.low - air, r.high + air)


def roomy(r: Range) -> int:
    """The least magnitude at which a truncation opens ROOM times the range: then a value outside, which a guard sees
    modulo all that is opened, seldom looks like one inside."""
    return bits(ROOM * (r.high - r.low)) - 2  # what is opened reaches 2^(magnitude + 2)


Site = Mapping[str, Range]  # quantity -> its range at one call site


def bits(value: float) -> int:
    """The least integer m with |value| <= 2^m."""
    mantissa, exponent = math.frexp(abs(value))
    return exponent - (mantissa == 0.5)


def times(r: Range, factor: float) -> Range:
    """A range times a positive factor."""
    return Range(r.low * factor, r.high * factor)


def rounded_out(r: Range, step: float) -> Range:
    """The ends moved outward to multiples of `step`, so that call sites with similar ranges share their fits."""
    return Range(math.floor(r.low / step) * step, math.ceil(r.high / step) * step)


def roomiest(least: int, widths: Callable[[int], tuple[int, ...]]) -> int:
    """The largest magnitude, `least` or more, that has the widths of `least`: windows are whole bytes, so a promise may
    use all that it pays for.

    `widths` gives the windows that depend on a magnitude, and raises RangeError where words do not hold them. So does
    this function, where words do not hold the least.
    """
    paid, magnitude = widths(least), least
    while magnitude - least < MOST_ROOM and _widths(widths, magnitude + 1) == paid:
        magnitude += 1
    return magnitude


def bounded(x: Share, s: Session, r: Range, what: str, *, room: int = 0) -> Share:
    """x with the promise that it lies in its measured range, which a guarded session checks where x is opened next. The
    promise is 2^room at least, and as loose as the bytes of that opening allow. Local.

    Raises RangeError where the words of x do not hold the range.
    """
    air, holds = with_air(r), x.width - x.frac - 2
    if bits(r.reach) > holds:
        raise RangeError(f"the range of {what!r} reaches {r.reach:g}, but the layer before it holds values below "
                         f"2^{holds}; raise `magnitude`")

    def windows(m: int) -> tuple[int, ...]:
        if m > holds:
            raise RangeError("x does not hold that")
        return (s.fixed.window(s.fixed.frac, m),)

    magnitude = roomiest(max(1, min(holds, max(room, bits(air.reach)))), windows)
    return s.checked(x.promise(magnitude), air.low, air.high, what)


def _widths(widths: Callable[[int], tuple[int, ...]], magnitude: int) -> tuple[int, ...] | None:
    try:
        return widths(magnitude)
    except RangeError:
        return None
