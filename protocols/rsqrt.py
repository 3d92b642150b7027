"""1/sqrt(v) for positive v, one value per row: by series, and by SecFormer's Goldschmidt iteration.

Results are scaled by a public power of two, 2^j / sqrt(v), so that what is settled to 16 fractional bits is never
small; whoever multiplies with the result moves the point back, which is free.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np

from secformer.mpc.errors import RangeError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.fits import Fit, choose
from secformer.protocols.papers import cite
from secformer.protocols.ranges import Range

TOLERANCE = 2e-5            # largest relative error of a series
PERIOD_BITS = 8             # v is moved by a power of two so that its domain fills this period
FILL = 0.875                # fraction of the period that the domain fills
ROW_HARMONICS = (64, 128, 256, 384, 512, 768)
WIDEST = 2.0**10           # largest ratio high/low for which one series is tried
SEGMENT_BITS = 4            # a segment of a wider domain spans the ratio 2^4
SEGMENT_SLACK = 1.25        # a value this near to a cut may be taken for the other side
MOST_SEGMENTS = 5

PAPER_ETA, PAPER_ITERATIONS = 2000.0, 11  # SecFormer's deflation and iterations for LayerNorm
VALID = Range(0.001, 2.94)                # v / eta that the paper's 11 iterations serve; nearer to 3 they are too few
CONVERGED = 2e-5                          # largest relative error where we choose eta and the iterations
Q_BITS = 12                               # the deflated value is kept times 2^12
LEAST_ETA_BITS = 9                        # fewest fractional bits of 2^k / eta, which lies in (1/2, 1]
MOST_ITERATIONS = 60
PRODUCT_MAGNITUDE = 30                    # magnitude of row-wise products: with 16 fractional bits, whole words


@cite("luo2024secformer", "masked sine, taken to many harmonics")
@cite("huybrechs2010", "Fourier extension of 1/sqrt(v)")
def rsqrt_series(s: Session, v: Share, domain: Range, *, scale_bits: int, times: float = 1.0) -> Share:
    """times 2^scale_bits / sqrt(v) for v in the domain.   1 round where one series reaches 2e-5, else 5.

    One series (high/low up to 1024, with a domain's ends on half octaves), 3 to 4 bytes per row:
    1. z <- v 2^a, local, so that z fills a period of 2^8; open z mod 2^8; sum the harmonics
    Else m segments of ratio 16, about 8 m + 12 bytes per row:
    1. z likewise; below_i <- [z < h 16^-i], i = 1..m-1                         three rounds, one opening
    2. f_i <- the series of z 16^i, right where that is in [h/16, h]            one round for all i
    3. return the sum of (below_i - below_(i+1)) 4^i f_i                        one round

    Domain: high/low up to 2^20. Error, relative: at most 2e-5. Takes a pending v; the result has a truncation pending
    in the first case. Raises RangeError for a domain that is not positive or too wide.
    """
    _check(domain)
    move, low, high = _filling(domain)
    z = v * 2.0**move
    odd, gain = scale_bits * 2 + move & 1, scale_bits * 2 + move >> 1  # 2^(scale + move/2) = 2^gain sqrt(2)^odd
    if high / low <= WIDEST:
        one = rsqrt_fit(low, high, gain, odd, times)
        if one.error <= TOLERANCE:
            return s.series(z, [one.series])[0]
    return _by_segments(s, z, low, high, gain, odd, times)


def series_rounds(domain: Range) -> int:
    """Rounds of `rsqrt_series`."""
    _, low, high = _filling(domain)
    return 1 if high / low <= WIDEST and _unit_fit(low, high).error <= TOLERANCE else 5


def _check(domain: Range) -> None:
    if not 0.0 < domain.low <= domain.high < math.inf:
        raise RangeError(f"an inverse square root takes a positive domain, got [{domain.low:g}, {domain.high:g}]; "
                         f"check the range profile")


def _filling(domain: Range) -> tuple[int, float, float]:
    """a, and the domain times 2^a: ends on a grid of half octaves, outward, the upper at most FILL 2^PERIOD_BITS."""
    top = FILL * 2.0**PERIOD_BITS
    move = math.floor(math.log2(top / domain.high))
    above = math.floor(2.0 * math.log2(top / (domain.high * 2.0**move)) + 1e-9)
    below = math.ceil(2.0 * math.log2(top / (domain.low * 2.0**move)) - 1e-9)
    return move, top * 2.0 ** (-max(below, above + 2) / 2.0), top * 2.0 ** (-above / 2.0)


@lru_cache(maxsize=256)
def rsqrt_fit(low: float, high: float, gain: int, odd: int, times: float = 1.0) -> Fit:
    """The best fit of times 2^gain sqrt(2)^odd / sqrt(z) with as few harmonics as reach the tolerance."""
    unit = _unit_fit(low, high)
    return unit.times(times * 2.0**gain * math.sqrt(2.0) ** odd)


@lru_cache(maxsize=256)
def _unit_fit(low: float, high: float) -> Fit:
    return choose(lambda z: 1.0 / np.sqrt(z), low, high, tolerance=TOLERANCE, periods=(PERIOD_BITS,),
                  counts=ROW_HARMONICS, relative=True, strict=False)


def _by_segments(s: Session, z: Share, low: float, high: float, gain: int, odd: int, times: float) -> Share:
    count = math.ceil(math.log2(high / low) / SEGMENT_BITS)
    if count > MOST_SEGMENTS:
        raise RangeError(f"an inverse square root covers ratios up to 2^{SEGMENT_BITS * MOST_SEGMENTS} at one call "
                         f"site, but the range profile has {high / low:.3g}; check the model's weights")
    fit = rsqrt_fit(high * 2.0**-SEGMENT_BITS / SEGMENT_SLACK, high, gain, odd, times)
    cuts = [high * 2.0 ** (-SEGMENT_BITS * i) for i in range(1, count)]
    below = s.less(z, cuts, bound=high)                                                          # 1
    copies = [(z * 2.0 ** (SEGMENT_BITS * i)).reshape(*z.shape, 1) for i in range(count)]
    (found,) = s.series(s.concatenate(copies, -1), [fit.series])                                 # 2
    chosen = [1 - below[0], *(wider - finer for wider, finer in pairwise(below)), below[-1]]
    magnitude = fit.series.magnitude + SEGMENT_BITS * count // 2 + 1
    parts = s.mul_many([(c, found[..., i]) for i, c in enumerate(chosen)], magnitude=magnitude)  # 3
    total = parts[0]
    for i, part in enumerate(parts[1:], start=1):
        total = total + part * 2 ** (SEGMENT_BITS * i // 2)
    return total


@cite("luo2024secformer", "LayerNorm protocol: inverse square root by Goldschmidt with deflation")
@cite("markstein2004", "Goldschmidt's square root")
def rsqrt_goldschmidt(
    s: Session, v: Share, domain: Range, *, eta: float, iterations: int, scale_bits: int
) -> Share:
    """2^scale_bits / sqrt(v) for v in the domain.   2 rounds per iteration, 1 for the last; whole words per row.

    1. q <- v / eta, p <- 1      public deflation, local; one round where words are too short for q beside v
    2. repeat: m <- (3 - q)/2;  p <- p m;  q <- q m^2
    3. return p / sqrt(eta)

    `deflation` chooses eta and the iterations. q and p are kept times powers of two, so that rounding m cancels between
    them and the rest is small. m^2 is taken as an integer of 32 fractional bits: its truncation is left out, the one of
    q m^2 does it. 1 / eta has as many fractional bits as the words of v have room for: eta grows by a 256th at most.
    Error, relative: 9e-4 at the interval's ends with the paper's iterations, else 1e-4. Takes a pending v; the result
    has a truncation pending.
    """
    whole = math.floor(math.log2(eta))
    if _room(v, whole) < LEAST_ETA_BITS:
        lift = Q_BITS - math.ceil(math.log2(domain.high))  # v settles with as many bits as it can fill
        (v,) = s.settle((v * 2.0**lift).promise(Q_BITS))
        v = v * 2.0**-lift
    finer = min(s.fixed.frac, _room(v, whole))
    factor = math.floor(2.0 ** (whole + finer) / eta)
    q = (v * factor * 2.0 ** (Q_BITS - whole - finer)).promise(Q_BITS + 2)                       # 1
    eta = 2.0 ** (whole + finer) / factor
    p = s.public(2.0**scale_bits / math.sqrt(eta), q.shape)                                      # 3
    return converged(s, p, q, iterations)                                                        # 2


def _room(v: Share, whole: int) -> int:
    """Bits that the words of v have for a factor that makes v of q 2^Q_BITS, q below 4 being v 2^-whole times that."""
    return v.width - v.frac - 4 - whole


@cite("markstein2004", "Goldschmidt's square root")
def converged(s: Session, p: Share, q: Share, iterations: int) -> Share:
    """p / sqrt(q) by p <- p m, q <- q m^2 with m = (3 - q)/2, for q in (0, 3) kept times 2^12.

    2 rounds per iteration, 1 for the last. Takes pending values; the result has a truncation pending.
    """
    for _ in range(iterations - 1):
        m = (3 - q * 2.0**-Q_BITS) * 0.5
        p, mm = s.mul_many([(p, m), (m, m)], magnitude=PRODUCT_MAGNITUDE)
        q = s.mul(q, mm * 2.0**s.fixed.frac, magnitude=PRODUCT_MAGNITUDE) * 2.0**-s.fixed.frac
    return s.mul(p, (3 - q * 2.0**-Q_BITS) * 0.5, magnitude=PRODUCT_MAGNITUDE)


def deflation(domain: Range) -> tuple[float, int]:
    """eta and iterations for a domain: the paper's, 2000 and 11, where v / eta stays in [0.001, 2.94]; else its own,
    converging to 2e-5. Raises RangeError where 60 iterations do not suffice."""
    _check(domain)
    if domain.low >= VALID.low * PAPER_ETA and domain.high <= VALID.high * PAPER_ETA:
        return PAPER_ETA, PAPER_ITERATIONS
    eta = domain.high / 2.0  # q starts at most at 2, where m = 1/2 keeps it positive
    q = np.geomspace(domain.low / eta, domain.high / eta, 256)
    for i in range(1, MOST_ITERATIONS + 1):
        q = q * ((3.0 - q) / 2.0) ** 2
        if np.abs(np.sqrt(q) - 1.0).max() <= CONVERGED:
            return eta, i
    raise RangeError(f"Goldschmidt's iteration does not cover [{domain.low:g}, {domain.high:g}] in {MOST_ITERATIONS} "
                     f"steps; check the range profile")
