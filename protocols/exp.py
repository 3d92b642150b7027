"""exp(x) on a bounded domain, from one opening."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from secformer.mpc.errors import RangeError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.clip import floor_at
from secformer.protocols.papers import cite
from secformer.protocols.ranges import Range
from secformer.protocols.series import Fit, choose

TOLERANCE = 1.2e-5
FILL = 0.625      # share of the period in which the fit follows exp at least; the rest leads back up
FULLEST = 0.875   # most
HIGHEST = 2.0     # of a domain's upper end
DEEPEST = -440.0  # of its lower end, for a series of the whole domain
FLOOR = -12.0     # deeper domains are cut here: exp(-12) is 6e-6


@cite("luo2024secformer", "masked sine, taken to many harmonics")
@cite("huybrechs2010", "Fourier extension of exp")
def exp(s: Session, x: Share, domain: Range, *, scale_bits: int = 0) -> Share:
    """2^scale_bits exp(x) for x in the domain, whose upper end is at most 2.   1 round; 3 bytes an element.

    1. where the domain goes below -440: cut x at -12                        two rounds, about 5 bytes an element
    2. open x mod P, a power of two longer than the domain; sum the harmonics of the fit

    Any low end; below it the result stays near 0 as long as five eighths of the period last. Error, absolute: at
    most 1.2e-5 (the fit's tolerance) times 2^scale_bits, which keeps what rounding adds afterwards small.
    Takes a pending x; the result has a truncation pending. Raises RangeError where the domain goes above 2.
    """
    low, high = _rounded(domain)
    if low < DEEPEST:
        x, low = floor_at(s, x, FLOOR, domain), FLOOR                                 # 1
    return s.series(x, [exp_fit(low, high).times(2.0**scale_bits).series])[0]                    # 2


def _rounded(domain: Range) -> tuple[float, float]:
    """The ends on a coarse grid, outward, so that layers share their fits."""
    step = 4.0
    return (np.floor(min(domain.low, -step) / step) * step).item(), (np.ceil(domain.high * 8.0) / 8.0).item()


@lru_cache(maxsize=64)
def exp_fit(low: float, high: float) -> Fit:
    """The fit of exp for a domain. Raises RangeError where it goes too high."""
    if high > HIGHEST:
        raise RangeError(f"exp by series takes a domain below {HIGHEST:g}, got [{low:g}, {high:g}]; subtract the row "
                         f"maximum first")
    first = max(4, int(np.ceil(np.log2((high - low) / FULLEST))))
    return choose(np.exp, low, high, tolerance=TOLERANCE, periods=(first, first + 1), extend=FILL)
