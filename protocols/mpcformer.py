"""MPCFormer's functions: quadratic GeLU, 2Quad and 2ReLU, with CrypTen's reciprocal and root, as in the paper.

They differ from the exact functions: a checkpoint must have been distilled for them. As optimised as we could make
them: one reciprocal per row, after the product with the values; public powers of two move rows to where CrypTen's
reciprocal starts well. LayerNorm and the pooler's tanh are CrypTen's, on which MPCFormer is built.
"""

from __future__ import annotations

import numpy as np

from secformer.mpc.caches import Kept
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.fidelity import student
from secformer.protocols.newton import reciprocal_newton
from secformer.protocols.papers import cite
from secformer.protocols.quantities import INPUT, QUAD_SHIFT, QUAD_SUM, RELU_SUM, SCORE, VALUE, measured, needs, opens
from secformer.protocols.ranges import Range, Site, bits, bounded, with_air
from secformer.protocols.softmax import (
    EXP_BITS,
    plain_2quad,
    quad_mean,
    real_columns,
    spread_out,
    weighted_mean,
    within,
)

QUAD = 0.125, 0.25, 0.5  # coefficients of x^2, x and 1
E = 2.0**-6              # what 2ReLU adds to every row's sum, so that none is 0
WINDOW = 17              # bits of the widest comparison that two tables serve


def _magnitudes(at: Site) -> tuple[int, int]:
    """Of Quad of the range; and of an x whose words hold that beside the square."""
    reach, (square, slope, constant) = max(1.0, with_air(measured(at, INPUT)).reach), QUAD
    most = bits(1.01 * (square * reach**2 + slope * reach + constant))
    return most, most + bits(1.0 / square) - bits(1.0 / slope)


def _quad_magnitude(fixed: FixedPoint, at: Site) -> int:
    return _magnitudes(at)[1] if INPUT.name in at else 1


@cite("li2023mpcformer", "Quad")
@student("Quad", quad=list(QUAD))
@needs(INPUT)
@opens(_quad_magnitude)
def gelu_quad(s: Session, x: Share, at: Site) -> Share:
    """0.125 x^2 + 0.25 x + 0.5 for x in at["input"].   1 round; 3 bytes per element for |x| up to 50, 4 beyond.

    1. x^2; the rest is local, all three constants being powers of two

    Any domain at["input"]. Error against its formula: 1e-4 for |x| to 26, since the square enlarges x's rounding;
    against GeLU: 0.5 at 0, and growing as x^2: MPCFormer's networks are trained with it.
    Takes a pending x; the result has a truncation pending.
    """
    x = bounded(x, s, measured(at, INPUT), INPUT.name)
    (square, slope, constant), (most, least) = QUAD, _magnitudes(at)
    if x.width - x.frac - 2 < least:
        (x,) = s.settle(x)
    y = s.square(x, magnitude=most - bits(square)) * square + x * slope + constant               # 1
    return y.promise(most)


@cite("li2023mpcformer", "2Quad")
@cite("knott2021crypten", "reciprocal by Newton's iteration")
@student("2Quad", plain=plain_2quad, quad_shift=QUAD_SHIFT)
@needs(VALUE, SCORE, QUAD_SUM)
def softmax_2quad_newton(s: Session, scores: Share, values: Kept, mask: np.ndarray, at: Site) -> Share:
    """p @ values / row sums of p, p = (scores + 5)^2, over real columns: (B, H, Q, D).

    23 rounds with the published 10 iterations; about 15 bytes per score, 13 per value, 200 per row.
    1. p <- (scores + 5)^2, masked columns times 0                               one round
    2. c <- p @ values; q <- row sums of p                                       two rounds
    3. n <- 1 / q by `reciprocal_newton`, one per row                            19 rounds
    4. return c n                                                                one round

    Ranges: at["value"], at["score"]; at["quad_sum"], the row sums q. The released benchmark starts Newton's iteration
    at q itself and leaves its domain for q above 250; here q is moved by a public power of two. Error, relative: 1e-3
    at most (see `reciprocal_newton`), typically 1e-4. Takes pending scores; the result has a truncation pending.
    """
    return quad_mean(s, scores, values, mask, at, reciprocal_newton)


@cite("li2023mpcformer", "2ReLU")
@student("2ReLU")
def plain_2relu(s: Session, scores: Share, values: Kept, mask: np.ndarray, at: Site) -> Share:
    """2ReLU in float64, in the twin only: (relu(x) + e/n) / (sum relu(x) + e) @ values over a row's n real columns."""
    def weights(x: np.ndarray) -> np.ndarray:
        real = spread_out(mask)
        w = (np.maximum(x, 0.0) + E / real.sum(axis=-1, keepdims=True)) * real
        return np.asarray(w / w.sum(axis=-1, keepdims=True))

    return s.matmul(s.apply(weights, scores), values)


@cite("li2023mpcformer", "2ReLU")
@cite("mohassel2017secureml", "softmax by ReLU")
@cite("knott2021crypten", "reciprocal by Newton's iteration")
@student("2ReLU", plain=plain_2relu)
@needs(VALUE, SCORE, RELU_SUM)
def softmax_2relu(s: Session, scores: Share, values: Kept, mask: np.ndarray, at: Site) -> Share:
    """(relu(x) + e/n) / (sum relu(x) + e) @ values over a row's n real columns: (B, H, Q, D).

    23 rounds with the published 10 iterations; about 11 bytes per score, 13 per value, 200 per row.
    1. w <- relu(scores) + e/n, masked columns times 0                           two rounds
       Scores count with 16 bits in all (11 fractional ones for scores below 31), which two small tables compare.
    2. c <- w @ values; q <- row sums of w                                       one round
    3. n <- 1 / q by `reciprocal_newton`, one per row                            19 rounds
    4. return c n                                                                one round

    Ranges: at["value"], at["score"]; at["relu_sum"], the row sums of relu. e = 2^-6. The released training code has
    1e-12, which only keeps a row without positive scores (it becomes uniform) from dividing by 0. Fixed point needs an
    e that can be inverted; 2^-6 changes a row that sums to 1 by 1.6 %. Error of a weight against this formula: 1e-3,
    for rows that sum to 1 or more. Takes pending scores; the result has a truncation pending.
    """
    columns = real_columns(scores, values, mask)
    score, total = measured(at, SCORE), measured(at, RELU_SUM)
    unit = 2.0**EXP_BITS  # weights are kept times this, so that rounding them costs little
    added = np.asarray(unit * E / spread_out(mask).sum(axis=-1, keepdims=True), dtype=np.float64)
    bound = unit * (score.reach + 1.0)
    if columns is not None:
        scores = within(scores, columns, score)
    w = s.relu(scores * unit, bound=bound, precision=max(4, min(16, WINDOW - 1 - bits(bound)))).promise(bits(bound) + 1)
    w = w + np.broadcast_to(added, w.shape)
    if columns is not None:
        w = w * columns
    domain = Range(unit * (max(0.0, total.low) + 0.98 * E), unit * (max(0.0, total.high) + 1.02 * E))
    return weighted_mean(s, w, values, domain, at, reciprocal_newton)                            # 2 to 4
