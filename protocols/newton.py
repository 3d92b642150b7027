"""1/y and 1/sqrt(v) by Newton's iteration from CrypTen's starting values, one value per row.

CrypTen's starting values suit a fixed interval. Where a checkpoint's range leaves it, values are moved by a public
power of two. Newton's sequence y <- y (2 - x y) is computed in its coupled form, which keeps d = x y up to date as
d <- d (2 - d): the same sequence with two products side by side instead of one after the other; likewise the root.
That is one and two rounds per iteration on this engine instead of two and three.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from secformer.mpc.errors import RangeError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols import reciprocal, rsqrt
from secformer.protocols.limit import exp_limit
from secformer.protocols.papers import cite
from secformer.protocols.ranges import Range, bits
from secformer.protocols.rsqrt import PRODUCT_MAGNITUDE

SQUARINGS = 8                  # squarings in CrypTen's exponential, (1 + x/2^8)^(2^8)
ROW_FINER = 13                 # bits beyond the session's that a row's bases carry
ITERATIONS = 10                # iterations of the reciprocal, as published
TOP_BITS = 7                   # the reciprocal starts from values up to 2^7: the published start works up to about 250
RECIPROCAL_START = 3.0, 0.003  # the reciprocal starts at 3 exp(1 - 2 y) + 0.003
RECIPROCAL_ERROR = 1e-3        # relative error to reach; if 10 iterations do not, more are made
ROOT_ITERATIONS = 3            # iterations of the inverse root, as published
ROOT_START = 2.2, 0.2, 1024.0  # the root starts at 2.2 exp(-(v/2 + 0.2)) + 0.2 - v/1024
ROOT_ERROR = 5e-3              # relative error to reach; if 3 iterations do not, more are made
MOST_ITERATIONS = 40           # domains that need more are refused
ROOT_FINER = 9                 # bits beyond the session's that a root's bases carry: leaves room for the factor 2.2
SLOPE_BITS = 10                # fractional bits of that factor
ROOT_BITS = 11                 # bits beyond the session's that a root carries
LIFT = 14                      # bits beyond the session's that v and the square of a root carry


@cite("knott2021crypten", "reciprocal by Newton's iteration")
@cite("markstein2004", "Newton's and Goldschmidt's iterations are one sequence")
def reciprocal_newton(s: Session, y: Share, domain: Range, *, scale_bits: int) -> Share:
    """2^scale_bits / y for y in the domain.   19 rounds with the published 10 iterations; about 200 bytes per row.

    1. z <- y 2^-k, public k so that z <= 2^7 (0 where the domain fits)          local
    2. n <- 3 exp(1 - 2 z) + 0.003, exp by 8 squarings; d <- z n                 nine rounds
    3. 10 times: m <- 2 - d;  n <- n m;  d <- d m                                one round each

    Domain: high/low up to about 1e5 with 10 iterations; `reciprocal_plan` takes more for wider ones. Error, relative:
    1e-3 at the lower end of the widest domains, below 1e-6 for high/low up to 10^4, and 2^-16 of rounding.
    Takes a pending y; the result has a truncation pending. Raises RangeError for a domain that is not positive or too
    wide.
    """
    move, iterations = reciprocal_plan(domain)
    low = domain.low * 2.0**-move
    slope, least = RECIPROCAL_START
    room = 1 + max(3, bits(1.0 / low))                  # bits of the starting value and of all that follow
    n_bits, z_bits = PRODUCT_MAGNITUDE - 1 - room, room
    z = y * 2.0 ** (z_bits - move)                                                               # 1
    arg = 1.0 - y * 2.0 ** (1 - move)
    z, arg = z.promise(TOP_BITS + z_bits + 1), arg.promise(TOP_BITS + 2)
    e = exp_limit(s, arg, Range(1.0 - 2.0 ** (TOP_BITS + 1), 1.0), squarings=SQUARINGS, finer=ROW_FINER)  # 2
    n = ((e * int(slope)).promise(4) * 2.0**n_bits) + least * 2.0**n_bits
    d = s.mul(z, n, magnitude=PRODUCT_MAGNITUDE) * 2.0 ** (reciprocal.D_BITS - n_bits - z_bits)
    return reciprocal.converged(s, n, d, iterations) * 2.0 ** (scale_bits - move - n_bits)       # 3


@lru_cache(maxsize=256)
def reciprocal_plan(domain: Range) -> tuple[int, int]:
    """k and iterations for a domain: 0 and 10, as published, where they reach 1e-3."""
    if not 0.0 < domain.low <= domain.high < math.inf:
        raise RangeError(f"a reciprocal takes a positive domain, got [{domain.low:g}, {domain.high:g}]; "
                         f"check the range profile")
    slope, least = RECIPROCAL_START
    best = bits(domain.high) - TOP_BITS
    tried = [(best, MOST_ITERATIONS)]
    if domain.high <= 2.0**TOP_BITS:
        tried.insert(0, (0, ITERATIONS))
    for move, most in tried:
        z = np.geomspace(domain.low, domain.high, 512) * 2.0**-move
        error = 1.0 - z * (slope * (1.0 + (1.0 - 2.0 * z) / 2.0**SQUARINGS) ** 2.0**SQUARINGS + least)
        worst = float(np.abs(error).max())
        for i in range(ITERATIONS, most + 1):
            if worst ** 2.0**i <= RECIPROCAL_ERROR:
                return move, i
    raise RangeError(f"Newton's iteration does not cover [{domain.low:g}, {domain.high:g}] in {MOST_ITERATIONS} steps; "
                     f"check the range profile")


@cite("knott2021crypten", "inverse square root by Newton's iteration")
@cite("markstein2004", "Newton's and Goldschmidt's iterations are one sequence")
def rsqrt_newton(s: Session, v: Share, domain: Range, *, scale_bits: int) -> Share:
    """2^scale_bits / sqrt(v) for v in the domain.   16 rounds with the published 3 iterations; about 110 bytes per row.

    1. z <- v 4^-k, public k where the starting value is best                    one round
    2. p <- 2.2 exp(-(z/2 + 0.2)) + 0.2 - z/1024, exp by 8 squarings             eight rounds
    3. q <- z p^2                                                                two rounds
    4. 3 times: m <- (3 - q)/2;  p <- p m;  q <- q m^2                           two rounds each, the last one one

    Domain: high/low up to about 1000 with 3 iterations; `root_plan` takes more for wider ones. Error, relative: 5e-3.
    CrypTen goes on to the square root, which is this times v, and to its reciprocal, which takes 40 rounds and leads
    back to this value: we leave both out. Takes a pending v; the result has a truncation pending. Raises RangeError for
    a domain that is not positive or too wide.
    """
    move, iterations = root_plan(domain)
    high = domain.high * 4.0**-move
    slope, least, tilt = ROOT_START
    z = v * 4.0**-move
    arg = (z * -0.5 - 0.2).promise(bits(high / 2.0 + 0.3))
    lifted = (z * 2.0**LIFT).promise(LIFT + bits(1.01 * high))
    lifted, arg = s.settle(lifted, arg * 2.0 ** (ROOT_FINER - SQUARINGS))                        # 1
    e = exp_limit(s, arg * 2.0 ** (SQUARINGS - ROOT_FINER), Range(-high / 2.0 - 0.3, 0.0), squarings=SQUARINGS,
                  finer=ROOT_FINER, spare=SLOPE_BITS + 1)                                        # 2
    p = (e * round(slope * 2.0**SLOPE_BITS)).promise(SLOPE_BITS + 2) * 2.0 ** (ROOT_BITS - SLOPE_BITS)
    p = p + least * 2.0**ROOT_BITS - lifted * 2.0 ** (ROOT_BITS - LIFT - bits(tilt))
    p = p.promise(ROOT_BITS + 2)
    pp = s.square(p, magnitude=2 * ROOT_BITS + 4) * 2.0 ** (LIFT - 2 * ROOT_BITS)
    q = s.mul(pp, lifted, magnitude=2 * LIFT + 2) * 2.0 ** (rsqrt.Q_BITS - 2 * LIFT)             # 3
    return rsqrt.converged(s, p, q, iterations) * 2.0 ** (scale_bits - move - ROOT_BITS)         # 4


@lru_cache(maxsize=256)
def root_plan(domain: Range) -> tuple[int, int]:
    """k and iterations for a domain: 3, as published, where they reach 5e-3 for some k, and the best such k; else as
    many as reach it."""
    if not 0.0 < domain.low <= domain.high < math.inf:
        raise RangeError(f"an inverse square root takes a positive domain, got [{domain.low:g}, {domain.high:g}]; "
                         f"check the range profile")
    middle = round(math.log(domain.high, 4.0))
    iterations, _, move = min((*_root_error(domain, move), move) for move in range(middle - 6, middle + 2))
    if iterations > MOST_ITERATIONS:
        raise RangeError(f"Newton's iteration does not cover [{domain.low:g}, {domain.high:g}] in {MOST_ITERATIONS} "
                         f"steps; check the range profile")
    return move, iterations


def _root_error(domain: Range, move: int) -> tuple[int, float]:
    """Iterations that reach ROOT_ERROR on the domain times 4^-move, more than MOST_ITERATIONS where none do, and the
    error then."""
    slope, least, tilt = ROOT_START
    z = np.geomspace(domain.low, domain.high, 1024) * 4.0**-move
    if z[-1] > 2.0**SQUARINGS:
        return MOST_ITERATIONS + 1, 1.0
    p = slope * (1.0 - (z / 2.0 + 0.2) / 2.0**SQUARINGS) ** 2.0**SQUARINGS + least - z / tilt
    q = z * p * p
    if p.min() <= 0.0 or q.max() >= 2.9:
        return MOST_ITERATIONS + 1, 1.0
    for i in range(1, MOST_ITERATIONS + 1):
        q = q * ((3.0 - q) / 2.0) ** 2
        error = float(np.abs(np.sqrt(q) - 1.0).max())
        if i >= ROOT_ITERATIONS and error <= ROOT_ERROR:
            return i, error
    return MOST_ITERATIONS + 1, 1.0
