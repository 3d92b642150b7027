"""exp(x) on a bounded domain, from one opening."""

from __future__ import annotations

import math

from secformer.mpc.errors import RangeError
from secformer.mpc.functions import HIGHEST, LEAST_PERIOD_BITS, Exponential
from secformer.mpc.guards import INDEX_BITS
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.clip import floor_at
from secformer.protocols.papers import cite
from secformer.protocols.ranges import Range

SPARE = 1.125           # factor by which a table reaches deeper than the domain that was asked for
MOST_PERIOD_BITS = 9    # bits of the longest period; its table has 32 words per element
ROOM = 0.5              # in deeper domains, inputs are cut this far above the shortest table's end, near -15


@cite("luo2024secformer", "one masked opening, here of an exponent instead of an angle")
def exp(s: Session, x: Share, domain: Range, *, scale_bits: int = 0) -> Share:
    """2^scale_bits exp(x) for x in the domain, whose upper end is at most 2.   1 round; 3 bytes per element, 4 where
    the domain goes below about -213.

    1. where no table reaches the domain's low end (about -440): cut x at -15    two rounds, about 5 bytes per element
    2. open x mod P, a power of two longer than the domain; a public power of e times an entry of the dealer's table

    Error: 2.1e-6 times 2^scale_bits, and 3.3e-5 relative, nearly all of which comes from rounding a pending x. Where x
    is cut, 3e-7 times 2^scale_bits more (exp(-15); twice that per unit by which the domain goes above 0.25); and where
    the domain goes below -2^15, x has fewer fractional bits (`floor_at`). Takes a pending x; the result has a
    truncation pending. Raises RangeError where the domain goes above 2.
    """
    high = _end(domain)
    if high > HIGHEST:
        raise RangeError(f"exp takes a domain below {HIGHEST:g}, got [{domain.low:g}, {domain.high:g}]; subtract the "
                         f"row maximum first")
    function, down = guarded_table(domain.low, high) if s.guarded else (table(domain.low, high), 0)
    end = None
    if s.guarded:
        moved = down * math.log(2.0)
        x, domain, end = x - moved, Range(domain.low - moved, domain.high - moved), high - moved
    cut = function is None
    if function is None:
        function = Exponential(LEAST_PERIOD_BITS, high if end is None else HIGHEST)
        x = floor_at(s, x, function.low + ROOM, domain)                                          # 1
    return s.exponential(x, function, cut=cut, high=end) * 2.0 ** (scale_bits + down)            # 2


def is_cut(s: Session, domain: Range) -> bool:
    """Whether no table reaches the domain's low end."""
    high = _end(domain)
    return (guarded_table(domain.low, high)[0] if s.guarded else table(domain.low, high)) is None


def _end(domain: Range) -> float:
    """The domain's upper end, on a grid, so that layers share their plans' kinds."""
    return max(0.0, math.ceil(domain.high * 8.0) / 8.0)


def guarded_table(low: float, high: float) -> tuple[Exponential | None, int]:
    """The smallest table for a domain whose upper end is moved down by a multiple of ln 2, and that multiple. It is so
    large that a guard, which tells nothing apart within one part, lets no value pass above the table's own end. Without
    a table, the multiple for the shortest."""
    for p in range(LEAST_PERIOD_BITS, MOST_PERIOD_BITS):  # parts of the longest are too long
        down = _halvings(p, high)
        found = Exponential(p, HIGHEST)
        if found.low <= high - SPARE * (high - low) - down * math.log(2.0):
            return found, down
    return None, _halvings(LEAST_PERIOD_BITS, high)


def _halvings(period_bits: int, high: float) -> int:
    """How often e^x is halved so that x ends a guard's part below HIGHEST."""
    part = 2.0 ** (period_bits - INDEX_BITS)
    return max(0, math.ceil((high + part - HIGHEST) / math.log(2.0)))


def table(low: float, high: float) -> Exponential | None:
    """The smallest table for a domain, with some room below; None where none is large enough."""
    tables = (Exponential(p, high) for p in range(LEAST_PERIOD_BITS, MOST_PERIOD_BITS + 1))
    return next((t for t in tables if t.low <= high - SPARE * (high - low)), None)
