"""RMSNorm, then a linear layer: x / sqrt(mean(x^2) + eps) W. A `Function` of x and a weight that has the norm's gains
in it, row by row.

A row's root r is one number, and linear(r x) = r linear(x). So a few rows are multiplied by the weight in the round of
the root, and by the root after that. This saves a round or two, and multiplies M numbers of a row by its root instead
of C. Many rows are multiplied by their roots first, where that takes fewer bytes.

N rows, C channels, M outputs.

    y = f.recipe.of(RMSNORM_LINEAR)(s, x, weight, eps, magnitude, f.at("layer.0.mlp.norm"))
"""

from __future__ import annotations

import math
from dataclasses import replace

from secformer.mpc.errors import RangeError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share, Weight
from secformer.protocols.layernorm import SERIES_TOLERANCE, lifting, times_root
from secformer.protocols.papers import cite
from secformer.protocols.quantities import GAIN, INPUT, MEAN_SQUARE, measured, needs, opens
from secformer.protocols.ranges import Range, Site, bits
from secformer.protocols.recipes import Function
from secformer.protocols.rmsnorm import entered, holding_x, rmsnorm_exact, root_of, summed

FINER = 4                  # bits: the weight is kept 2^this times, since a norm's gains are often small
NO_GAIN = Range(1.0, 1.0)  # of x itself: the weight has the gains
ROUND = 250_000            # bytes, of both parties together, that a round is worth: 1 ms of 1 Gbit/s in each direction
OPENED = 4                 # bytes of a party, in which most elements are truncated or multiplied by a root


def few(rows: int, channels: int, outputs: int) -> bool:
    """Whether so many rows meet the weight before their roots. Then roots are multiplied with `outputs` of a row; else
    with `channels`, and what comes out is truncated for the product with the weight."""
    return 2 * OPENED * rows * (outputs - 2 * channels) <= ROUND


@cite("zhang2019rmsnorm", "root mean square layer normalisation")
@cite("luo2024secformer", "masked sine, taken to 1/sqrt")
@needs(INPUT, MEAN_SQUARE)
@opens(holding_x)
def rmsnorm_linear(s: Session, x: Share, weight: Weight, eps: float, magnitude: int, at: Site) -> Share:
    """x / sqrt(mean(x^2) + eps) @ W: x (N, C), weight 2^FINER W (C, M) -> (N, M), pending.

    A `few` rows, 3 rounds; 7 where at["mean_square"] spans a ratio above about 600. Bytes: 3 or 4 per element of x,
    more where x reaches far, and those of its product with the weight, 6 or 7; 4 or 5 per element of the result.
    1. x^2;  x settles                                                           one round
    2. v <- sum(x^2) + C eps = C (mean square + eps)
    3. r <- sqrt(C) / sqrt(v), one per row;  z <- x W                            one round, or five
    4. return z r                                                                one round
    Many rows, two rounds more, or one where what is left of y is wide enough. Bytes per element of x: 3 or 4 in each of
    steps 1, 4 and 5, and those of its product with the weight, 6 or 7.
    4. y <- x r                                                                  one round
    5. return y W                                                                two rounds, or one

    `magnitude` bounds the result. Of a few rows, a larger one comes out beyond the bound, too, but wrong; of many rows,
    it is right modulo the window of step 5, as of any linear layer (`blocks.entering` leaves room). Ranges as in
    `rmsnorm`, without gains. While x and its mean square stay within theirs, z is below the bound times the largest
    root mean square, which its product holds. Error: that of the root, 2e-5 relative to the result; that of rounding x,
    as in `rmsnorm`, and W, at FINER more bits than other numbers, over sums of C products; and a unit of the last
    place.
    Takes a pending x. Raises RangeError as `rmsnorm`, and where words do not hold z or z r.
    A guarded session checks x, v and r as `rmsnorm` does. Whoever takes the result checks that.
    """
    x, plan = entered(s, x, eps, {**at, GAIN.name: NO_GAIN})
    product = max(1, magnitude + bits(math.sqrt(plan.domain.high / x.shape[-1])))
    room = s.fixed.whole - magnitude - plan.root_bits
    if room < 0 or product + FINER > s.fixed.whole:
        squares = measured(at, MEAN_SQUARE)
        raise RangeError(f"a linear layer behind RMSNorm gives values below 2^{magnitude}, for rows whose mean square "
                         f"is {squares.low:g} to {squares.high:g}; words do not hold the product of such rows. Lower "
                         f"`magnitude` or `frac`, or check the model's weights")
    early = few(x.shape[0], *weight.shape[-2:])
    wide = max(plan.square_bits, product + FINER if early else 1)
    xx, x = s.mul_many([(x, x)], magnitude=wide, settled=[x])                                      # 1
    v = summed(xx, plan, eps)                                                                      # 2
    if not early:
        x, plan, r = x.promise(plan.input_bits), replace(plan, lift=0), root_of(s, v, plan)        # 3
        y = times_root(s, x, r, v, plan, SERIES_TOLERANCE)                                         # 4
        return s.matmul(y, weight, magnitude=magnitude + FINER) * 2.0**-FINER                      # 5
    with s.one_round():
        z = s.matmul(x, weight, magnitude=product + FINER)                                         # 3
        r = root_of(s, v, plan)
    lift = lifting(plan.domain, plan.times * 2.0**plan.unit_bits, room)
    plan = replace(plan, result_bits=magnitude, lift=lift)
    return times_root(s, z * 2.0 ** (lift - FINER), r, v, plan, SERIES_TOLERANCE)                  # 4


@cite("zhang2019rmsnorm", "root mean square layer normalisation")
def exact_rmsnorm_linear(s: Session, x: Share, weight: Weight, eps: float, magnitude: int, at: Site) -> Share:
    """RMSNorm and a linear layer in float64, in the twin only."""
    return s.matmul(s.apply(lambda v: rmsnorm_exact(v, eps), x), weight) * 2.0**-FINER


RMSNORM_LINEAR = Function("rmsnorm_linear", rmsnorm_linear, exact_rmsnorm_linear)
