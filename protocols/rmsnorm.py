"""RMSNorm over the last axis: x / sqrt(mean(x^2) + eps) gamma. A `Function` of x and the gains.

N rows, C channels. It is LayerNorm without a mean, a row sum and a bias, and shares its steps (`layernorm`). The mean
needs no division: the inverse root of the sum of squares is taken sqrt(C) times.

    y = f.recipe.of(RMSNORM)(s, x, gamma, eps, f.at("layer.0.attention.norm"))
"""

from __future__ import annotations

import math

import numpy as np

from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.layernorm import SERIES_TOLERANCE, Form, Plan, times_root
from secformer.protocols.papers import cite
from secformer.protocols.quantities import GAIN, INPUT, MEAN_SQUARE, measured, needs, opens
from secformer.protocols.ranges import Site, bits, with_air
from secformer.protocols.recipes import Function
from secformer.protocols.rsqrt import rsqrt_series

LEAST_UNITS = 2.0**9  # of the last place in which x is rounded, that a row's root mean square must have
FORM = Form("RMSNorm", MEAN_SQUARE, False)


def holding_x(fixed: FixedPoint, at: Site) -> int:
    return bits(with_air(at[INPUT.name]).reach) if INPUT.name in at else 1


@cite("zhang2019rmsnorm", "root mean square layer normalisation")
@cite("luo2024secformer", "masked sine, taken to 1/sqrt")
@needs(INPUT, GAIN, MEAN_SQUARE)
@opens(holding_x)
def rmsnorm(s: Session, x: Share, gamma: Share, eps: float, at: Site) -> Share:
    """x / sqrt(mean(x^2) + eps) gamma: x (N, ..., C), gamma (C,) or (..., C) -> x's shape, pending, in whole words.

    3 rounds; 7 where at["mean_square"] spans a ratio above about 600. 6 bytes per element, 7 or 8 where x reaches
    farther than about ten times its least root mean square.
    1. x^2, x gamma                                                              one round
    2. v <- sum(x^2) + C eps = C (mean square + eps)
    3. r <- sqrt(C) / sqrt(v), one per row                                       one round, or five
    4. return x gamma r                                                          one round

    Ranges: at["input"], of x; at["gain"], a power of two that bounds |gamma|; at["mean_square"], of a row. While x
    stays within its range, no product of step 1 wraps. While the mean square stays within its range too, the result is
    right. Error: that of `rsqrt_series`, 2e-5 relative to the result, and of rounding x at its place in words: 2^-17
    of the least root mean square, more where a word is too small for C times the square of what x reaches. Takes a
    pending x.

    The mean square may span a ratio of 2^20: the largest row may be 1,000 times the least. Raises RangeError beyond,
    and where words that hold the largest row's squares would round the least one by more than 2^-10 of itself.
    A guarded session checks the range of x, that v is at most its measured largest, and v r^2 = C to 2^-11.
    """
    x, plan = entered(s, x, eps, at)
    xx, xg = s.mul_many([(x, x), (x, gamma)], magnitude=(plan.square_bits, plan.deviation_bits))  # 1
    v = summed(xx, plan, eps)                                                                      # 2
    g = xg.promise(plan.deviation_bits) * 2.0**plan.lift
    return times_root(s, g, root_of(s, v, plan), v, plan, SERIES_TOLERANCE)                        # 3, 4


@cite("zhang2019rmsnorm", "root mean square layer normalisation")
def entered(s: Session, x: Share, eps: float, at: Site) -> tuple[Share, Plan]:
    """x times 2^near, with a checked promise, and the plan of its norm. Local. Raises RangeError as `rmsnorm`."""
    plan = Plan.of(s.fixed, x, eps, at, s.guarded, FORM)
    finest = math.sqrt(plan.domain.low / x.shape[-1])  # the least root mean square, times 2^near
    if finest < LEAST_UNITS * 2.0**-s.fixed.frac:
        raise RangeError(f"RMSNorm's input reaches {measured(at, INPUT).reach:g}; words that hold its squares round x "
                         f"to {2.0 ** (-s.fixed.frac - plan.near):g}, which is too coarse for rows whose mean square "
                         f"is {measured(at, MEAN_SQUARE).low:g}")
    unit, most = 2.0**plan.near, 2.0**plan.input_bits
    inputs = with_air(measured(at, INPUT))
    x = (x * unit).promise(plan.input_bits)
    return s.checked(x, max(-most, inputs.low * unit), min(most, inputs.high * unit), INPUT.name), plan


def summed(xx: Share, plan: Plan, eps: float) -> Share:
    """v = C (mean square + eps) of rows x of C channels, at the plan's scale, from their squares. Local."""
    return xx.sum(-1, keepdims=True).promise(plan.square_bits) + eps * xx.shape[-1] * 4.0**plan.near


@cite("luo2024secformer", "masked sine, taken to 1/sqrt")
def root_of(s: Session, v: Share, plan: Plan) -> Share:
    """sqrt(C) / sqrt(v), at the plan's scale. 1 round, or five (see `rsqrt_series`)."""
    return rsqrt_series(s, v, plan.domain, scale_bits=plan.root_bits + plan.unit_bits, times=plan.times)


def rmsnorm_exact(x: np.ndarray, eps: float) -> np.ndarray:
    """x / sqrt(mean(x^2) + eps) in float64, the reference."""
    return np.asarray(x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps))


@cite("zhang2019rmsnorm", "root mean square layer normalisation")
def exact_rmsnorm(s: Session, x: Share, gamma: Share, eps: float, at: Site) -> Share:
    """RMSNorm in float64, in the twin only."""
    return s.mul(s.apply(lambda v: rmsnorm_exact(v, eps), x), gamma)


RMSNORM = Function("rmsnorm", rmsnorm, exact_rmsnorm)
