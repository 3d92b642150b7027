"""1/y for positive y, one value per row: by series, and by SecFormer's Goldschmidt iteration.

Results are scaled by a public power of two, 2^j / y, so that what is settled to 16 fractional bits is never small;
whoever multiplies with the result moves the point back, which is free.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Protocol

import numpy as np

from secformer.mpc.errors import RangeError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols import rsqrt
from secformer.protocols.fits import Fit, choose
from secformer.protocols.papers import cite
from secformer.protocols.ranges import Range, bits
from secformer.protocols.rsqrt import PRODUCT_MAGNITUDE, ROW_HARMONICS, rsqrt_series

TOLERANCE = 1.2e-4      # largest relative error of one series
WIDEST = 320.0          # largest ratio high/low for which one series is tried

PAPER_ETA, PAPER_ITERATIONS = 5000.0, 13  # SecFormer's deflation and iterations for 2Quad's rows
VALID = Range(0.001, 1.999)               # y / eta that the paper's 13 iterations serve
CONVERGED = 2e-5                          # largest relative error where we choose eta and the iterations
D_BITS = 16                               # the deflated value is kept times 2^16
N_BITS, LEAST_N_BITS = 26, 4              # bits that n may grow to, and the fewest that it starts with
MOST_ITERATIONS = 40


class Reciprocal(Protocol):
    """2^scale_bits / y for y in the domain."""

    def __call__(self, s: Session, y: Share, domain: Range, *, scale_bits: int) -> Share: ...


@cite("luo2024secformer", "masked sine, taken to many harmonics")
@cite("huybrechs2010", "Fourier extension of 1/y")
def reciprocal_series(s: Session, y: Share, domain: Range, *, scale_bits: int) -> Share:
    """2^scale_bits / y for y in the domain.   1 round where one series reaches 1.2e-4, else 2 (or 6, see rsqrt).

    One series (high/low up to about 250), 3 to 4 bytes per row:
    1. open y mod P; sum the harmonics
    Else, since 1/sqrt(y) spans half as many octaves, about 20 bytes per row more:
    1. r <- 2^j / sqrt(y) by series
    2. return r^2                                                                        one round

    Domain: high/low up to 2^20. Error, relative: at most 1.2e-4. Takes a pending y; the result has a
    truncation pending.
    """
    _check(domain)
    low, high = _rounded(domain)
    if high / low <= WIDEST:
        one = reciprocal_fit(low, high, scale_bits)
        if one.error <= TOLERANCE:
            return s.series(y, [one.series])[0]
    root_bits = 4 + bits(math.sqrt(domain.high))  # the root settles at 2^4 or more
    r = rsqrt_series(s, y, domain, scale_bits=root_bits)                                         # 1
    return s.square(r, magnitude=PRODUCT_MAGNITUDE) * 2.0 ** (scale_bits - 2 * root_bits)        # 2


def series_rounds(domain: Range) -> int:
    """Rounds of `reciprocal_series`, where nothing is pending."""
    low, high = _rounded(domain)
    if high / low <= WIDEST and reciprocal_fit(low, high, 0).error <= TOLERANCE:
        return 1
    return 1 + rsqrt.series_rounds(domain)


def _check(domain: Range) -> None:
    if not 0.0 < domain.low <= domain.high < math.inf:
        raise RangeError(f"a reciprocal takes a positive domain, got [{domain.low:g}, {domain.high:g}]; "
                         f"check the range profile")


def _rounded(domain: Range) -> tuple[float, float]:
    """Ends moved outward to a grid of eighths of an octave, so that layers share their fits."""
    return (2.0 ** (math.floor(8.0 * math.log2(domain.low) + 1e-9) / 8.0),
            2.0 ** (math.ceil(8.0 * math.log2(domain.high * 1.0001) - 1e-9) / 8.0))


@lru_cache(maxsize=256)
def reciprocal_fit(low: float, high: float, scale_bits: int) -> Fit:
    """The best fit of 2^scale_bits / y with as few harmonics as reach the tolerance."""
    return choose(lambda y: 1.0 / y, low, high, tolerance=TOLERANCE, counts=ROW_HARMONICS, relative=True,
                  strict=False).times(2.0**scale_bits)


@cite("luo2024secformer", "2Quad softmax: division by Goldschmidt with deflation")
@cite("goldschmidt1964", "division")
def reciprocal_goldschmidt(s: Session, y: Share, *, eta: float, iterations: int, scale_bits: int) -> Share:
    """2^scale_bits / y for 0 < y < 2 eta.   1 round per iteration; whole words per row.

    1. n <- 1, d <- y / eta                         public deflation
    2. repeat: m <- 2 - d;  n <- n m;  d <- d m
    3. return n / eta

    `deflation` chooses eta and the iterations. n and d are kept times powers of two, so that rounding m cancels between
    them and the rest is small. Error, relative: 3e-4 at the interval's ends with the paper's iterations, else 1e-4, and
    2^-17 / y for the rounding of y itself, which counts where sums are far below 1.
    Takes a pending y; the result has a truncation pending.
    """
    # n starts as large as its growth, below 2^(iterations - 2), leaves room for: a first m near 0 makes it small
    finer = max(0, max(LEAST_N_BITS, N_BITS - iterations) + bits(eta) - scale_bits)
    d = deflated(y, eta, D_BITS)                                                                 # 1
    n = s.public(2.0 ** (scale_bits + finer) / eta, d.shape)                                     # 3
    return converged(s, n, d, iterations) * 2.0**-finer                                          # 2


@cite("goldschmidt1964", "division")
def converged(s: Session, n: Share, d: Share, iterations: int) -> Share:
    """n / d by n <- n m, d <- d m with m = 2 - d, for d in (0, 2) kept times 2^16.   1 round per iteration.

    Takes pending values; the result has a truncation pending.
    """
    for _ in range(iterations - 1):
        m = 2 - d * 2.0**-D_BITS
        n, d = s.mul_many([(n, m), (d, m)], magnitude=PRODUCT_MAGNITUDE)
    return s.mul(n, 2 - d * 2.0**-D_BITS, magnitude=PRODUCT_MAGNITUDE)


def deflated(y: Share, eta: float, finer_bits: int) -> Share:
    """y / eta times 2^finer_bits. Local. The power of two goes first, so that the promised magnitude grows with it."""
    whole = math.floor(math.log2(eta))
    return (y * 2.0 ** (finer_bits - whole)) * (2.0**whole / eta)


def deflation(domain: Range) -> tuple[float, int]:
    """eta and iterations for a domain: the paper's, 5000 and 13, where y / eta stays in [0.001, 1.999]; else the
    domain's own, converging to 2e-5. Raises RangeError where 40 iterations do not suffice."""
    _check(domain)
    if domain.low >= VALID.low * PAPER_ETA and domain.high <= VALID.high * PAPER_ETA:
        return PAPER_ETA, PAPER_ITERATIONS
    eta = domain.high / 1.5
    d = np.array([domain.low, domain.high]) / eta
    for i in range(1, MOST_ITERATIONS + 1):
        d = d * (2.0 - d)
        if np.abs(d - 1.0).max() <= CONVERGED:
            return eta, i
    raise RangeError(f"Goldschmidt's iteration does not cover [{domain.low:g}, {domain.high:g}] in {MOST_ITERATIONS} "
                     f"steps; check the range profile")
