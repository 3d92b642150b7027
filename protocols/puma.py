"""PUMA's functions: GeLU in four polynomial pieces, softmax by a clipped limit exponential, LayerNorm by one inverse
root.

As optimised as we could make them: all breakpoints are compared from one opening, inputs outside of the polynomials'
interval are set to 0, so that windows are narrow; powers share their openings; the maximum is
compared at a few fractional bits, as softmax allows; one reciprocal per row, after the product with the values.
Reciprocal and root are those of PUMA's framework (see `octaves`). The paper has no tanh: the pooler's is ours, `tanh`,
in PUMA's favour.
"""

from __future__ import annotations

import math

import numpy as np

from secformer.mpc.caches import Kept
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.fidelity import approximate
from secformer.protocols.layernorm import holding_row_sums, layernorm_by
from secformer.protocols.limit import NEAR, exp_limit, holding_bases, least_bound
from secformer.protocols.octaves import reciprocal_octaves, rsqrt_octaves
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
from secformer.protocols.ranges import Site, bounded, times, with_air
from secformer.protocols.softmax import EXP_BITS, real_columns, shifted, weighted_mean

BREAKS = -4.0, -1.95, 3.0
# coefficients of x^0 to x^3 between the first two breakpoints, and of x^0, x^1, x^2, x^4, x^6 between the last two
CUBIC = -0.5054031199708174, -0.42226581151983866, -0.11807612951181953, -0.011034134030615728
SEXTIC = 0.008526321541038084, 0.5, 0.3603292692789629, -0.037688200365904236, 0.0018067462606141187
PRECISION = 10      # fractional bits of a comparison with a breakpoint: both pieces are equally wrong there
SQUARE_BITS, CUBE_BITS = 3, 4  # x^2 is opened times 2^-3, x^3 times 2^-4, which takes three bytes
POLYNOMIAL = 3      # |c|, |P3| and |P6| are below 2^3
WIDE = 22           # magnitude of the powers' products: words of seven bytes have room for the constants
CLIP = -14.0        # exp is taken as 0 for inputs below this, as published
SQUARINGS = 5


@cite("dong2023puma", "GeLU by piecewise polynomials")
@needs(INPUT)
@approximate
def gelu_piecewise(s: Session, x: Share, at: Site) -> Share:
    """0 below -4, P3(x) below -1.95, P6(x) up to 3, x above.   8 rounds; about 32 bytes per element.

    1. b1, b2, b3 <- [x < -4], [x < -1.95], [x <= 3]                             three rounds, one opening
    2. c <- x (b3 - b1); over <- x (1 - b3)                                      one round
    3. c^2; c^3 and c^4; c^6                                                     three rounds
    4. return (b2 - b1) P3(c) + (b3 - b2) P6(c) + over                           one round

    c is 0 outside of [-4, 3]: powers stay small whatever the domain. Any domain at["input"]. A breakpoint may move by
    2^-10, both pieces being equally wrong there. Error against its formula: 2e-4 (and within 2^-10 of a breakpoint the
    formula's own gap: 6e-4 at -4, 7e-3 at -1.95, 1.6e-2 at 3); against GeLU: 2e-2. Takes a pending x; the result has no
    truncation pending, and the width of a product.
    """
    r = measured(at, INPUT)
    x, reach = bounded(x, s, r, INPUT.name), max(8.0, with_air(r).reach)
    thresholds = [*BREAKS[:2], math.nextafter(BREAKS[2], math.inf)]
    below, middle, inside = s.less(x, thresholds, bound=reach, precision=PRECISION, known=True, narrow=True)  # 1
    c, over = s.mul_many([(x, inside - below), (x, 1 - inside)])                                 # 2
    c = c.promise(POLYNOMIAL)
    c2 = (s.square(c, magnitude=WIDE) * 2.0**-SQUARE_BITS).promise(2)                            # 3
    c3, c4 = s.mul_many([(c, c2), (c2, c2)], magnitude=WIDE)
    c3, c4 = (c3 * 2.0 ** (SQUARE_BITS - CUBE_BITS)).promise(3), c4.promise(3)
    c6 = s.square(c3, magnitude=WIDE).promise(5)
    p3 = _times(c3, CUBIC[3] * 2.0**CUBE_BITS) + _times(c2, CUBIC[2] * 2.0**SQUARE_BITS)
    p6 = _times(c6, SEXTIC[4] * 4.0**CUBE_BITS) + _times(c4, SEXTIC[3] * 4.0**SQUARE_BITS)
    p6 = p6 + _times(c2, SEXTIC[2] * 2.0**SQUARE_BITS)
    p3, p6 = ((p + c * linear + constant).promise(POLYNOMIAL)
              for p, constant, linear in ((p3, *CUBIC[:2]), (p6, *SEXTIC[:2])))
    left, right = s.mul_many([(middle - below, p3), (inside - middle, p6)])                      # 4
    return left + right + over


def _times(x: Share, constant: float) -> Share:
    """x times a constant with as many fractional bits as the words of x have room for: an integer factor."""
    fraction = x.width - x.frac - POLYNOMIAL - 2
    return x * round(constant * 2.0**fraction) * 2.0**-fraction


@cite("dong2023puma", "softmax: clipped exponential, one reciprocal per row")
@opens(holding_bases)
@needs(VALUE, SCORE, SPREAD, MAXIMUM, EXP_SUM)
@approximate
def softmax_clipped(s: Session, scores: Share, values: Kept, mask: np.ndarray, at: Site) -> Share:
    """e @ values / row sums of e, e = (1 + x/2^5)^(2^5), 0 below -14, x = scores less their row maximum: (B, H, Q, D).

    19 rounds beside those of a row maximum; about 33 bytes per score, 13 per value, 40 per row.
    1. x <- scores - m, m a coarse row maximum                                   see `shifted`
    2. keep <- [x >= -14], where the range goes below                            three rounds, one opening of 2 bytes
    3. e <- keep (1 + x/2^5)^(2^5), masked columns times 0                       seven rounds (six without keep)
    4. c <- e @ values; z <- row sums of e                                       one round
    5. return c / z by `reciprocal_octaves`, one per row                         nine rounds, the first with that

    Ranges: at["value"], at["score"], at["spread"], at["exp_sum"]. Error of a weight against softmax: 3e-2 of the row's
    largest at most (x^2/64 relative, largest near x = -2); against its formula with the same m: 5e-4. m lies up to 2^-1
    below the maximum, which brings x nearer to 0, where the formula is better. Takes pending scores; the result has a
    truncation pending.
    """
    columns = real_columns(scores, values, mask)
    x, domain, total = shifted(s, scores, columns, at, near=NEAR,
                               least_bound=least_bound(measured(at, SCORE), SQUARINGS))          # 1
    if columns is not None:
        x = x * columns  # masked columns at 0, where exp is 1, until it is taken out
    e = exp_limit(s, x, domain, squarings=SQUARINGS, floor=CLIP)                                 # 2, 3
    if columns is not None:
        e = e * columns
    return weighted_mean(s, e * 2.0**EXP_BITS, values, times(total, 2.0**EXP_BITS), at, reciprocal_octaves)  # 4, 5


@cite("dong2023puma", "LayerNorm")
@cite("ba2016layernorm", "layer normalisation")
@needs(*NORM)
@opens(holding_row_sums)
@approximate
def layernorm_octaves(s: Session, x: Share, gamma: Share, beta: Share | float, eps: float, at: Site) -> Share:
    """LayerNorm with the inverse root of PUMA's framework: x (N, C), gamma, beta (C,) -> (N, C), pending.

    9 rounds; about 6 bytes per element. Ranges as in `layernorm_by`; at["variance"] up to 20 octaves. Error: that of
    `rsqrt_octaves`, 2e-4 relative to the result. Takes a pending x.
    """
    return layernorm_by(s, x, gamma, beta, eps, at, rsqrt_octaves)
