"""exp(x) as the limit (1 + x/2^t)^(2^t), by t squarings: CrypTen's exponential (t = 8) and PUMA's (t = 5)."""

from __future__ import annotations

import math

from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.guarding import BEYOND
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.papers import cite
from secformer.protocols.ranges import Range, Site, bits

FINER = 2                # bits that an element's base has beyond the session's: 18 as in PUMA
FLOOR_PRECISION = 3      # fractional bits of the comparison with the floor
NEAR = 0.5               # a coarse maximum lies less than this below the row's: at x = 2, PUMA's exp is 6 % too small
LARGEST_BASE = 0.97      # even powers of a negative base below -0.97 are no longer near 0: 0.97^256 is 4e-4


@cite("knott2021crypten", "exponential by repeated squaring")
@cite("dong2023puma", "exponential by repeated squaring, cut to 0")
def exp_limit(
    s: Session, x: Share, domain: Range, *, squarings: int, floor: float = -math.inf, finer: int = FINER,
    spare: int = 0,
) -> Share:
    """(1 + x/2^t)^(2^t), t = squarings, for x in the domain, and 0 for x below the floor.

    t rounds, about 3 t bytes per element; where the domain goes below the floor, 4 rounds and 8 bytes more.
    1. b <- 1 + x/2^t, local
    2. where the domain goes below the floor: b <- b [x >= floor]        four rounds
    3. t times: b <- b^2                                                 one round each

    Domain, down to the floor: above -1.97 2^t, since a base below -1 diverges, as the published formula does. The
    comparison with the floor sees three fractional bits of x: choose a floor where exp is almost 0. Error, relative to
    exp: x^2 / 2^(t+1) to first order (t = 8: 5e-2 at x = -5, of an exp of 7e-3). Rounding: bases carry `finer` bits
    beyond the session's; the first one's rounding counts 2^t times. `spare` bits of the windows are left for factors
    that the caller multiplies the result by. Takes a pending x; the result has a truncation pending.
    """
    n = 2.0**squarings
    low, high = 1.0 + max(domain.low, floor) / n, 1.0 + domain.high / n
    if not -LARGEST_BASE <= low <= high < 2.0:
        raise RangeError(f"exp by {squarings} squarings takes x in [{-(1.0 + LARGEST_BASE) * n:g}, {n:g}], got "
                         f"[{domain.low:g}, {domain.high:g}]; cut x before")
    top = max(0, bits(max(1.0, high**n)))
    magnitude = 2 * finer + 1 + spare + top
    first = bits(max(2.0, 1.02 * (1.0 + domain.low / n), -1.02 * (1.0 + domain.low / n)))
    b = ((x * (1.0 / n) + 1.0) * 2.0**finer).promise(finer + first)                              # 1
    beyond = (domain.high - domain.low) * BEYOND / n  # inputs may lie at the very ends
    least = max(1.0 + domain.low / n - beyond, min(-LARGEST_BASE, 1.0 + domain.low / n))
    b = s.checked(b, least * 2.0**finer, (1.0 + domain.high / n + beyond) * 2.0**finer, "exponent")
    if domain.low < floor:
        (below,) = s.less(x, [floor], bound=domain.reach + 1.0, precision=FLOOR_PRECISION, narrow=True)  # 2
        b = s.mul(b, 1 - below, magnitude=magnitude).promise(finer + 1)
    for _ in range(squarings):                                                                   # 3
        b = s.square(b, magnitude=magnitude) * 2.0**-finer
    return (b * 2.0**-finer).promise(1 + top)


def holding_bases(fixed: FixedPoint, at: Site) -> int:
    """The least magnitude of a product whose exponentials are taken by `exp_limit` without settling it first: bases
    have more fractional bits than scores."""
    return fixed.magnitude


def least_bound(score: Range, squarings: int) -> float:
    """The least bound of scores to give to `shifted`: its x is right modulo 4 times that, which must hold a base
    with its fractional bits and a truncation's headroom."""
    return max(2.0 ** (squarings + 1), 2.0 * (score.reach + 1.0))
