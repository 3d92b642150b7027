"""GeLU(x) = x/2 (1 + erf(x / sqrt 2)): as one series, and in SecFormer's three segments."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from secformer.mpc.fixed import FixedPoint
from secformer.mpc.functions import Series
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.clip import clip
from secformer.protocols.fidelity import approximate, faithful
from secformer.protocols.fits import WIDE, Fit, choose
from secformer.protocols.papers import cite
from secformer.protocols.quantities import INPUT, measured, needs, opens
from secformer.protocols.ranges import Range, Site, bits, bounded, rounded_out, with_air

Fitted = Callable[[float, float, int], Fit]  # lower end, upper end, fractional bits of the format
TOLERANCE = 1e-4
NARROW = 17, 16      # fractional bits of masks and factors (see `Precision`): results below 2^5 take five bytes
NARROW_REACH = 14.0  # largest domain that takes NARROW: |x| up to this
FAST_FRAC = 12       # number formats of so many fractional bits, or fewer, take FAST_TOLERANCE and FAST_REACH:
FAST_TOLERANCE = 2.4e-4  # a unit of their last place
FAST_REACH = 30.0    # for NARROW: then the linear term needs no more of x than products of 32 bits have
COARSE = 8.0    # largest |x| of a domain from which domains are rounded to even numbers, so that layers share fits
WIDEST = 112.0  # in ranges up to this size, inputs are used as they are
LIMIT = 6.0     # in wider ranges, inputs are clipped to this size: beyond it GeLU is 0 or x to 6e-9

# SecFormer's segment: erf(v) = -1 below -CUT, 1 above CUT, sum of BETA[k] sin(k pi v / 10) between
CUT = 1.7
BETA = (1.25772, -0.0299154, 0.382155, -0.0519123, 0.196033, -0.0624557, 0.118029)
PERIOD = 20.0                      # period of the sines, in v
FOLDED_BITS = 4                    # the sines are evaluated with period 2^4, since only powers of two divide the ring
FOLD = 2.0**FOLDED_BITS / PERIOD   # factor that brings v to that period
SHORT = 6                          # bits of a comparison's reach that leave 9 fractional bits in two bytes
FOLD_FRAC = 12                     # fractional bits of that factor, for x: a product of 48 bits has room for no more


def _magnitude(fixed: FixedPoint, at: Site) -> int:
    return gate_magnitude(fixed, at, gelu_fit)


@cite("hendrycks2016gelu", "GeLU")
@cite("luo2024secformer", "masked sine, taken to many harmonics")
@cite("huybrechs2010", "Fourier extension of GeLU")
@faithful
@needs(INPUT)
@opens(_magnitude)
def gelu_series(s: Session, x: Share, at: Site) -> Share:
    """GeLU(x) = x/2 + g(x) for x in at["input"], g by a Fourier series.   1 round; 3 bytes per element.

    1. where the range exceeds [-112, 112]: clip x to [-6, 6], GeLU being 0 and x outside   two rounds, about 10 bytes
    2. open x mod P; sum the harmonics of the fit of g; add x/2, which is local

    Any domain. Error, absolute: at most 1e-4 in the twin (the fit's tolerance), 2e-4 on shares. Takes a pending x; the
    result has a truncation pending, unless x was clipped.
    """
    return gate(s, x, measured(at, INPUT), gelu_fit, LIMIT)


@cite("luo2024secformer", "masked sine, taken to many harmonics")
@cite("huybrechs2010", "Fourier extension of the activation less x/2")
def gate(s: Session, x: Share, r: Range, fitted: Fitted, limit: float) -> Share:
    """A function that is 0 below -limit and x above limit, for x in r: by its fit for the range; in ranges beyond
    WIDEST, by its fit for [-limit, limit] of x clipped, plus what lies over. Steps and price as in `gelu_series`."""
    r = _rounded(r)
    if r.reach > WIDEST:
        x, over = clip(s, x, limit, reach=r.reach)                                               # 1
        (inner,) = s.settle(*s.series(x, [fitted(-limit, limit, s.fixed.frac).series]))
        return inner + over
    return s.series(x, [_fitted(r, fitted, s.fixed).guarded])[0]                   # 2


def gate_magnitude(fixed: FixedPoint, at: Site, fitted: Fitted) -> int:
    """The least magnitude of a product that `gate` opens without settling it first (see `quantities.opens`)."""
    if INPUT.name not in at or _rounded(at[INPUT.name]).reach > WIDEST:
        return 1
    series = _fitted(_rounded(at[INPUT.name]), fitted, fixed).series
    return series.needed_width(fixed, 2 * fixed.frac) - 2 * fixed.frac - 2


def _rounded(r: Range) -> Range:
    return rounded_out(r, 1.0 if r.reach < COARSE else 2.0)


def _fitted(r: Range, fitted: Fitted, fixed: FixedPoint) -> Fit:
    return fitted(min(r.low, -3.0), max(r.high, 3.0), fixed.frac)


def gate_fit(fn: Callable[[np.ndarray], np.ndarray], low: float, high: float, frac: int) -> Fit:
    """The fit of such a function for a domain and a number format: x/2, and a series. Raises RangeError where the
    domain is too wide."""
    fast = frac <= FAST_FRAC
    small = max(-low, high) <= (FAST_REACH if fast else NARROW_REACH)
    return choose(fn, low, high, tolerance=FAST_TOLERANCE if fast else TOLERANCE, linear=0.5,
                  precision=NARROW if small else WIDE)


@lru_cache(maxsize=256)
def gelu_fit(low: float, high: float, frac: int = 16) -> Fit:
    """The fit for a domain and a number format. Raises RangeError where the domain is too wide."""
    return gate_fit(gelu_exact, low, high, frac)


@lru_cache(maxsize=1)
def segment() -> Series:
    """The middle segment's sines, as a series of v FOLD."""
    none = (0.0,) * (len(BETA) + 1)
    return Series(FOLDED_BITS, none, (0.0, *BETA), magnitude=2, mask_frac=14, public_frac=14)


def _folding(fixed: FixedPoint, at: Site) -> int:
    return FOLDED_BITS + FOLD_FRAC - 2


@cite("luo2024secformer", "GeLU protocol: segmented Fourier series for erf")
@cite("zheng2023sine", "sine from one masked opening")
@needs(INPUT)
@opens(_folding)
@approximate
def gelu_segmented(s: Session, x: Share, at: Site) -> Share:
    """GeLU(x), v = x / sqrt 2: erf(v) is -1 below -1.7, 1 above 1.7, seven sines between.

    6 rounds; 18 bytes per element for |x| up to 48, 2 more beyond.
    1. lower, upper <- [v < -1.7], [v < 1.7]                                            three rounds, one opening
    2. f <- sum over k of beta_k sin(k pi v / 10), the argument folded by 16/20         one round
    3. e <- (upper - lower) f + (1 - upper) - lower                                     one round
    4. return x (1 + e)/2                                                               one round

    Any domain at["input"]. Error, absolute: at most 2e-2, the paper's own approximation. Takes a pending x. The result
    has a truncation pending, and is right in whole words, so that a matrix product takes it as it is.
    """
    r = measured(at, INPUT)
    x = bounded(x, s, r, INPUT.name)
    reach, cut = max(4.0, with_air(r).reach), CUT * math.sqrt(2.0)
    # a threshold may move by 2^-9: both segments are equally wrong there
    precision = 9 if bits(reach + cut + 2.0**-8) == SHORT else 10
    lower, upper = s.less(x, [-cut, cut], bound=reach, precision=precision, known=True, narrow=True)  # 1
    (f,) = s.series(_folded(s, x), [segment()])                                                  # 2
    e = s.mul(upper - lower, f, magnitude=1) + (1 - upper) - lower                               # 3
    return s.mul(x, ((e + 1) * 0.5).promise(1), magnitude=bits(1.02 * reach) + 1, whole=True)    # 4


def _folded(s: Session, x: Share) -> Share:
    """x FOLD / sqrt(2), by an integer factor, so that a pending x need not settle. One round more where its
    words are too short for that."""
    if x.width - x.frac - FOLD_FRAC < FOLDED_BITS:
        (x,) = s.settle(x)
    return x * round(FOLD / math.sqrt(2.0) * 2.0**FOLD_FRAC) * 2.0**-FOLD_FRAC


def gelu_exact(x: np.ndarray) -> np.ndarray:
    """GeLU in float64, the reference."""
    return np.asarray(0.5 * x * (1.0 + erf(x * math.sqrt(0.5))))


def erf(x: np.ndarray) -> np.ndarray:
    """The error function in float64, error below 1e-13: cubic Hermite interpolation in a table of `math.erf`."""
    values, slopes, step = _table()
    t = np.minimum(np.abs(x), (values.size - 1.001) * step) / step
    i = t.astype(np.int64)
    t = t - i
    u = 1.0 - t
    y = values[i] * (u * u * (1.0 + 2.0 * t)) + values[i + 1] * (t * t * (1.0 + 2.0 * u))
    y += (slopes[i] * u - slopes[i + 1] * t) * (t * u * step)
    return np.asarray(np.copysign(y, x))


@lru_cache(maxsize=1)
def _table() -> tuple[np.ndarray, np.ndarray, float]:
    step = 2.0**-10
    x = np.arange(6145) * step
    return np.array([math.erf(v) for v in x.tolist()]), 2.0 / math.sqrt(math.pi) * np.exp(-x * x), step
