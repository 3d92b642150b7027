"""CrypTen's functions: GeLU by its tanh formula, tanh by the sigmoid, softmax by the limit exponential and a tree
maximum, LayerNorm by Newton's inverse root.

As optimised as we could make them: all comparisons of an input are made from one opening, |x| and max(x, 0) share
another; Newton's iterations are coupled (see `newton`); the maximum is compared at a few fractional bits, as softmax
allows; one reciprocal per row, after the product with the values; truncations are exact where CrypTen's can wrap.
"""

from __future__ import annotations

import math

import numpy as np

from secformer.mpc.caches import Kept
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.clip import clip
from secformer.protocols.fidelity import approximate
from secformer.protocols.layernorm import holding_row_sums, layernorm_by
from secformer.protocols.limit import NEAR, exp_limit, holding_bases, least_bound
from secformer.protocols.newton import SQUARINGS, reciprocal_newton, rsqrt_newton
from secformer.protocols.papers import cite
from secformer.protocols.quantities import (
    EXP_SUM,
    INPUT,
    MAXIMUM,
    NORM,
    SCORE,
    SPREAD,
    VALUE,
    measured,
    needs,
    opens,
)
from secformer.protocols.ranges import Range, Site, bits, bounded, times, with_air
from secformer.protocols.softmax import EXP_BITS, real_columns, shifted, weighted_mean

TANH_GELU = math.sqrt(2.0 / math.pi), 0.044715  # GeLU is x/2 (1 + tanh(a (x + b x^3)))
WIDE = 30               # magnitude of a product that is scaled while it is pending: whole words
PRECISION = 10          # fractional bits of GeLU's comparisons
WIDEST = 8.0            # in ranges up to this size, GeLU's inputs are used as they are
LIMIT = 5.0             # in wider ranges, they are clipped to this size, where x - GeLU(x) is 2e-7
TANH_WIDEST = 64.0      # in ranges up to this size, tanh's inputs are used as they are
TANH_LIMIT = 10.0       # in wider ranges, they are clipped to this size
SIGMOID_START = 0.75    # first approximation of the sigmoid's reciprocal, for three iterations
DEEPEST = -480.0        # lowest input of exp: (1 - 480/256)^256 is 1e-15, and 1 at -512
FLOOR = -128.0          # in deeper domains, exp is taken as 0 for inputs below this: exp(-128) is 3e-56


@cite("hendrycks2016gelu", "GeLU by tanh")
@cite("knott2021crypten", "tanh and sigmoid by exponential and reciprocal")
@needs(INPUT)
@approximate
def gelu_tanh(s: Session, x: Share, at: Site) -> Share:
    """x/2 (1 + tanh(z)), z = sqrt(2/pi) (x + 0.044715 x^3), for x in at["input"].   18 rounds; about 65 bytes.

    With a = |x|, since tanh is odd, this is max(x, 0) - a (1 - sigmoid(2 z(a))).
    1. [x < 0], and where the range exceeds [-8, 8] also [x < -5] and [x < 5]    three rounds, one opening
    2. a <- |x|, or 0 for |x| > 5, where the second term is left out; r <- max(x, 0)         one round
    3. w <- 2 z(a), by a^2 and a^3                                               two rounds
    4. g <- 1 - sigmoid(w)                                                       11 rounds
    5. return r - a g                                                            one round

    Any domain. As published, exp diverges for |x| above 18; step 2 keeps it where it works. The term left out is below
    2e-7 (2e-5 |x| as three Newton steps compute it). A sign may be wrong for |x| < 2^-10, where the formula holds with
    either sign. Error against the formula with published exp and reciprocal: 5e-4 (rounding, which 8 squarings
    enlarge); against GeLU: 2e-3. Takes a pending x; the result has a truncation pending, and is right in whole words.
    """
    r = measured(at, INPUT)
    reach = max(1.0, r.reach)
    most = LIMIT if reach > WIDEST else reach
    x = bounded(x, s, r, INPUT.name)
    thresholds = [0.0, -LIMIT, LIMIT] if reach > WIDEST else [0.0]
    negative, *cut = s.less(x, thresholds, bound=max(reach, with_air(r).reach), precision=PRECISION, known=True,
                            narrow=True)                                                         # 1
    sign = cut[1] + cut[0] - negative * 2 if cut else 1 - negative * 2
    a, positive = s.mul_many([(x, sign), (x, 1 - negative)], whole=True)                         # 2
    scale, cubic = TANH_GELU
    margin = most + 0.01
    a = a.promise(bits(margin))
    aa = s.square(a, magnitude=bits(margin**2))                                                  # 3
    cube = s.mul(aa, a, magnitude=WIDE).promise(bits(margin**3))
    w = cube * (2.0 * scale * cubic) + a * (2.0 * scale)
    g = one_less_sigmoid(s, w, 2.0 * scale * (margin + cubic * margin**3))                       # 4
    top = max(3, bits(reach + 1.0))
    return (positive - s.mul(a, g, magnitude=top, whole=True)).promise(top)                      # 5


@cite("knott2021crypten", "sigmoid by exponential and reciprocal")
def one_less_sigmoid(s: Session, w: Share, high: float) -> Share:
    """1 - 1/(1 + exp(-w)) for w in [0, high].   11 rounds; about 39 bytes per element.

    1. e <- exp(-w) by 8 squarings                                                               eight rounds
    2. y <- 1/(1 + e) by Newton from 0.75, three iterations. With f = 1 - 0.75 (1 + e):
       y = 0.75 (1 + f) (1 + f^2) (1 + f^4), the same sequence                                   three rounds
    3. return 1 - y

    Domain: high up to 490. Error: that of exp, and of three iterations 4e-3 at w = 0, falling to 0.
    Takes a pending w; the result has a truncation pending.
    """
    e = exp_limit(s, -w, Range(-high, 0.1), squarings=SQUARINGS, spare=1)                        # 1
    f = (1.0 - e * 3).promise(2)                   # 4 f: all factors below are kept times 4
    ff = (s.square(f, magnitude=4) * 0.25).promise(2)                                            # 2
    y = (f + 4.0).promise(3)
    f4, step = s.mul_many([(ff, ff), (y, ff)], magnitude=5)
    f4, y = (f4 * 0.25).promise(2), (y + step * 0.25).promise(4)
    y = y + s.mul(y, f4, magnitude=5) * 0.25
    return (1.0 - y * 3 * (SIGMOID_START / 12.0)).promise(0)                                     # 3


@cite("knott2021crypten", "tanh by sigmoid")
@needs(INPUT)
@approximate
def tanh_sigmoid(s: Session, x: Share, at: Site) -> Share:
    """2 sigmoid(2x) - 1 for x in at["input"].   16 rounds; about 62 bytes per element.

    1. where the range exceeds [-64, 64]: clip x to [-10, 10]                                    two rounds
    2. b <- [x < 0]; a <- (1 - 2 b) x                                                            four rounds
    3. g <- 1 - sigmoid(2 a)                                                                     11 rounds
    4. return (1 - 2 b) (1 - 2 g)                                                                one round

    Any domain. Error against its formula with published exp and reciprocal: 1e-3; against tanh: 5e-3.
    Takes a pending x; the result has no truncation pending.
    """
    r = measured(at, INPUT)
    reach = max(1.0, r.reach)
    if reach > TANH_WIDEST:
        x, _ = clip(s, x, TANH_LIMIT, reach=reach)                                               # 1
        reach = TANH_LIMIT
    else:
        x = bounded(x, s, r, INPUT.name)
    (negative,) = s.less(x, [0.0], bound=1.25 * reach + 1.0, known=True)                         # 2
    sign = 1 - negative * 2
    a = s.mul(x, sign).promise(bits(reach + 0.1) + 1)
    g = one_less_sigmoid(s, a * 2.0, 2.0 * reach + 0.1)                                          # 3
    return s.mul(sign, 1.0 - g * 2.0)                                                            # 4


@cite("knott2021crypten", "softmax: tree maximum, exponential, reciprocal")
@opens(holding_bases)
@needs(VALUE, SCORE, SPREAD, MAXIMUM, EXP_SUM)
@approximate
def softmax_limit(s: Session, scores: Share, values: Kept, mask: np.ndarray, at: Site) -> Share:
    """e @ values / row sums of e, e = (1 + x/2^8)^(2^8), x = scores less their row maximum: (B, H, Q, D).

    30 rounds with the published 10 iterations beside those of a row maximum; about 35 bytes per
    score, 13 per value, 200 per row.
    1. x <- scores - m, m a coarse row maximum                                   see `shifted`
    2. keep <- [x >= -128], where the range goes below -480                      three rounds
    3. e <- keep (1 + x/2^8)^(2^8), masked columns times 0                       nine rounds (ten with keep)
    4. c <- e @ values; z <- row sums of e                                       one round
    5. return c / z by `reciprocal_newton`, one per row                          20 rounds

    Ranges: at["value"], at["score"], at["spread"], at["exp_sum"]. As published, e diverges for x below -512. Error of a
    weight against softmax: 1e-2 of the row's largest at most (x^2/512 relative, largest near x = -2); against its
    formula with the same m: 1e-3. Takes pending scores; the result has a truncation pending.
    """
    columns = real_columns(scores, values, mask)
    x, domain, total = shifted(s, scores, columns, at, near=NEAR,
                               least_bound=least_bound(measured(at, SCORE), SQUARINGS))          # 1
    if columns is not None:
        x = x * columns  # masked columns at 0, where exp is 1, until it is taken out
    floor = FLOOR if domain.low < DEEPEST else DEEPEST
    e = exp_limit(s, x, domain, squarings=SQUARINGS, floor=floor)                                # 2, 3
    if columns is not None:
        e = e * columns
    return weighted_mean(s, e * 2.0**EXP_BITS, values, times(total, 2.0**EXP_BITS), at, reciprocal_newton)  # 4, 5


@cite("knott2021crypten", "inverse square root by Newton's iteration")
@cite("ba2016layernorm", "layer normalisation")
@needs(*NORM)
@opens(holding_row_sums)
@approximate
def layernorm_newton(s: Session, x: Share, gamma: Share, beta: Share | float, eps: float, at: Site) -> Share:
    """LayerNorm with CrypTen's Newton inverse root: x (N, C), gamma, beta (C,) -> (N, C), pending.

    18 rounds with the published 3 iterations; about 6 bytes per element. Ranges as in `layernorm_by`. Error: that of
    `rsqrt_newton`, at most 5e-3 relative to the result. Takes a pending x.
    """
    return layernorm_by(s, x, gamma, beta, eps, at, rsqrt_newton)
