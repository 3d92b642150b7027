"""exp(x) on a bounded domain, from one opening."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from secformer.mpc.errors import RangeError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.papers import cite
from secformer.protocols.ranges import Range
from secformer.protocols.series import Fit, choose

TOLERANCE = 3e-5
FILL = 0.8125        # share of the period in which the fit follows exp; the rest leads back up
DEEPEST = 200.0      # exp(-200) is zero at any precision here; deeper domains get the period 256 and no more


@cite("luo2024secformer", "masked sine, section 3, taken to many harmonics")
@cite("huybrechs2010", "Fourier extension of exp")
def exp(s: Session, x: Share, domain: Range) -> Share:
    """exp(x) for x in the domain, whose upper end is at most 2.   1 round; 3 bytes an element.

    1. open x mod P, a power of two longer than the domain; sum the harmonics of the fit

    Domain [-200, 2]; below the domain's low end the result stays near 0 for as long as the period lasts.
    Error, absolute: at most 3e-5 (the fit's tolerance).
    Takes a pending x; the result has a truncation pending.
    """
    return s.series(x, [exp_fit(*_rounded(domain)).series])[0]


def _rounded(domain: Range) -> tuple[float, float]:
    """The ends on a coarse grid, outward, so that layers share their fits."""
    step = 4.0
    return (np.floor(min(domain.low, -step) / step) * step).item(), (np.ceil(domain.high * 8.0) / 8.0).item()


@lru_cache(maxsize=64)
def exp_fit(low: float, high: float) -> Fit:
    """The fit of exp for a domain. Raises RangeError where the domain is too long or goes too high."""
    if high > 2.0 or low < -DEEPEST:
        raise RangeError(f"exp by series takes a domain inside [{-DEEPEST:g}, 2], got [{low:g}, {high:g}]; "
                         f"subtract the row maximum first, or clip what is far below it")
    first = max(4, int(np.ceil(np.log2((high - low) / FILL))))
    return choose(np.exp, low, high, tolerance=TOLERANCE, periods=(first, first + 1), extend=FILL)
