"""The verb that tells which rows reach public thresholds, in four rounds whatever a row's length."""

from __future__ import annotations

import math
from collections.abc import Sequence

from secformer.mpc.errors import RangeError, ShapeError
from secformer.mpc.guarding import BEYOND, Guarding
from secformer.mpc.guards import INDEX_BITS, ROUNDING
from secformer.mpc.primitives import Levels
from secformer.mpc.ring import WORD_BITS
from secformer.mpc.shares import Share

MOST_WINDOW = 10      # bits of an opening: one table of 2^9 bits per value answers in one round
MOST_THRESHOLDS = 64  # the bits of a row fill one word


class Thresholding(Guarding):
    """What a session that compares rows with thresholds adds to its guard."""

    def reached(self, x: Share, thresholds: Sequence[float], *, low: float, high: float, precision: int | None = None,
                width: int = WORD_BITS, known: bool = False) -> list[Share]:
        """[the largest of x along its last axis >= c] for each public threshold c, for low <= x <= high: shares
        (..., 1) of 0 or 1 (no fractional bits), right modulo 2^width.

        `precision` keeps that many fractional bits of x (default: the session's). A bit is never 1 where the largest
        lies below c. With dropped bits it may be 0 where the largest lies less than one unit of 2^-precision above c,
        where c is a multiple of that unit; other thresholds are rounded up to one.
        `known` says that low <= x <= high was checked before, or will show elsewhere: a guard has nothing to add.
        Takes a pending x. Raises RangeError where an opening of 10 bits does not hold x - c.

        Price: four rounds for any row length T. Per value its window, which holds x - c for all c, in whole bytes (one
        byte for 8 bits), and one bit per threshold. Per row, for each threshold a count (one byte; up to four where T
        is 256 to 1,020, else as many as hold T), and a bit for each, in whole bytes.
        """
        self._own(x)
        if not x.shape or x.shape[-1] == 0:
            raise ShapeError(f"rows need at least one value to have a largest one, got the shape {x.shape}")
        if not 1 <= len(thresholds) <= MOST_THRESHOLDS or not all(map(math.isfinite, thresholds)):
            raise RangeError(f"rows are compared with 1 to {MOST_THRESHOLDS} finite thresholds, got {list(thresholds)}")
        if not (math.isfinite(low) and math.isfinite(high) and low <= high and 1 <= width <= WORD_BITS):
            raise RangeError(f"values must lie in a finite interval and results in 1 to {WORD_BITS} bits, got "
                             f"[{low}, {high}] and {width} bits; take the interval from the range profile")
        keep = min(x.frac, self.fixed.frac if precision is None else precision)
        dropped, guarded = x.frac - keep, self.guarded and not known
        air = BEYOND * (high - low) if guarded else 0.0
        units = [math.ceil(c * 2.0**keep) for c in thresholds]
        window = window_of(low - air, high + air, units, keep, bool(dropped), guarded)
        if window > min(MOST_WINDOW, x.width - dropped):
            raise RangeError(f"comparing [{low:g}, {high:g}] with thresholds from {min(thresholds):g} to "
                             f"{max(thresholds):g} at {keep} fractional bits needs a window of {window} bits; at most "
                             f"{min(MOST_WINDOW, x.width - dropped)} are there. Lower the precision, or use `maximum`")
        if dropped:
            x = Share(self, self._drop(x.data, dropped), keep, x.width - dropped, x.magnitude)
        check = self._check(x, self._interval(low - air, high + air, "input"), keep, window) if guarded else None
        levels = Levels(tuple((float(c), unit) for c, unit in zip(thresholds, units, strict=True)), window, width,
                        float(low), float(high))
        return [Share(self, bit, 0, width, 1) for bit in self._reached(x, levels, check)]


def window_of(low: float, high: float, units: Sequence[int], keep: int, dropped: bool, guarded: bool = False) -> int:
    """Bits that hold x - c for low <= x <= high, kept to `keep` fractional bits, and every threshold c, in units of the
    last place; and, for a guard, room to tell values outside of the interval from values inside."""
    bottom, top = math.floor(low * 2.0**keep) - dropped, math.ceil(high * 2.0**keep)
    largest = max(0, top - min(units), max(units) - bottom - 1)  # -2^n takes as many bits as 2^n - 1
    window = max(2, 1 + largest.bit_length())
    while guarded and (window < INDEX_BITS or top - bottom + 2 * ROUNDING + (2 << window - INDEX_BITS) > 1 << window):
        window += 1
    return window
