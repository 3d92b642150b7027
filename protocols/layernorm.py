"""LayerNorm over the last axis: (x - mean) / sqrt(variance + eps) gamma + beta.

N rows, C channels. Mean and variance need no division: with t the row sum of x, C x - t and C sum(x^2) - t^2 are exact
integers of products that are opened together, so one round gives both the deviations times gamma and the variance.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from secformer.mpc.errors import RangeError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.fidelity import approximate, faithful
from secformer.protocols.papers import cite
from secformer.protocols.quantities import VARIANCE, needs, positive
from secformer.protocols.ranges import Range, Site, bits
from secformer.protocols.rsqrt import deflation, rsqrt_goldschmidt, rsqrt_series

GAMMA_BITS = 3       # |gamma| is promised below 2^3 times what a row's largest deviation leaves unused
ROOT_BITS = 3        # inverse roots settle at 2^3 or more: relative rounding below 2e-6
MOST_MAGNITUDE = 30  # largest magnitude of a product of settled values: with 16 fractional bits each, it fills a word


class InverseRoot(Protocol):
    """2^scale_bits / sqrt(v) for v in the domain."""

    def __call__(self, s: Session, v: Share, domain: Range, *, scale_bits: int) -> Share: ...


@cite("ba2016layernorm", "layer normalisation")
@cite("luo2024secformer", "masked sine, taken to 1/sqrt")
@faithful
@needs(VARIANCE)
def layernorm_series(s: Session, x: Share, gamma: Share, beta: Share, eps: float, at: Site) -> Share:
    """LayerNorm with 1/sqrt by series: x (N, C), gamma, beta (C,) -> (N, C), settled.

    6 rounds (11 where at["variance"] spans a ratio above about 250); about 28 bytes per element.
    Error: that of `rsqrt_series`, 2e-5 relative to the result. Takes a pending x.
    """
    return layernorm_by(s, x, gamma, beta, eps, at, rsqrt_series)


@cite("luo2024secformer", "LayerNorm protocol")
@needs(VARIANCE)
@approximate
def layernorm_goldschmidt(s: Session, x: Share, gamma: Share, beta: Share, eps: float, at: Site) -> Share:
    """LayerNorm with SecFormer's Goldschmidt inverse root: x (N, C), gamma, beta (C,) -> (N, C), settled.

    3 iterations + 5 rounds, 38 with the paper's 11 (eta = 2000, where at["variance"] allows); about 28 bytes an
    element. Error: that of `rsqrt_goldschmidt`, relative to the result. Takes a pending x.
    """
    variance = positive(at, VARIANCE)
    eta, iterations = deflation(Range(variance.low + eps, variance.high + eps))

    def root(s: Session, v: Share, domain: Range, *, scale_bits: int) -> Share:
        unit = domain.high / (variance.high + eps)  # v is the variance times this
        return rsqrt_goldschmidt(s, v, domain, eta=eta * unit, iterations=iterations, scale_bits=scale_bits)

    return layernorm_by(s, x, gamma, beta, eps, at, root)


@cite("ba2016layernorm", "layer normalisation")
def layernorm_by(
    s: Session, x: Share, gamma: Share, beta: Share, eps: float, at: Site, inverse_root: InverseRoot
) -> Share:
    """LayerNorm with the inverse root given: 5 rounds beside the root's; about 28 bytes per element.

    1. t <- row sums of x                                                     one round, which settles x
    2. x^2, t^2, x gamma, t gamma                                                one round
    3. v <- C sum(x^2) - t^2 = C^2 variance;  g <- C x gamma - t gamma
    4. r <- 1 / sqrt(v), one per row
    5. return g r + beta, since C cancels                                        three rounds
    """
    channels, variance = x.shape[-1], positive(at, VARIANCE)
    c = bits(channels)
    # where deviations are small, x settles finer: times 2^near, as far as whole words allow; where they are so large
    # that their squares would leave whole words, coarser
    spare = MOST_MAGNITUDE - 1 - bits((variance.high + eps) * channels**2)
    near = min(max(0, -bits(variance.low + eps)), spare) // 2
    domain = Range(*((end + eps) * channels**2 * 4.0**near for end in (variance.low, variance.high)))
    deviation = bits(math.sqrt(domain.high / channels)) + GAMMA_BITS       # bits of (x - mean) gamma at worst
    magnitude = _fitting(1 + max(c + deviation, bits(domain.high)), variance)
    (x,) = s.settle(x * 2.0**near)                                                               # 1
    t = x.sum(-1, keepdims=True)
    xx, tt, xg, tg = s.mul_many([(x, x), (t, t), (x, gamma), (t, gamma)], magnitude=magnitude)   # 2
    v = xx.sum(-1, keepdims=True) * channels - tt + eps * channels**2 * 4.0**near                # 3
    # r settles at 2^ROOT_BITS or more; g is C / 2^c (x - mean) gamma and settles the finer the larger r is
    coarse, fine = (math.ceil(math.log2(end) / 2.0) - c for end in (domain.high, domain.low))
    root_bits, lift = ROOT_BITS + coarse, max(0, 2 - fine)
    g = (xg * channels - tg) * 2.0 ** (lift - c)
    r = inverse_root(s, v, domain, scale_bits=root_bits + c)                                     # 4
    result = bits(math.sqrt(channels)) + GAMMA_BITS
    y = s.mul(g, r, magnitude=_fitting(result + lift + root_bits, variance)) * 2.0 ** -(lift + root_bits)
    (y,) = s.settle(y)                                                                           # 5
    return y + beta


def _fitting(magnitude: int, variance: Range) -> int:
    if magnitude > MOST_MAGNITUDE:
        raise RangeError(f"LayerNorm's products would need magnitude {magnitude} for variances in [{variance.low:g}, "
                         f"{variance.high:g}], but words hold {MOST_MAGNITUDE}; check the range profile")
    return magnitude


def layernorm_exact(x: np.ndarray, eps: float) -> np.ndarray:
    """(x - mean) / sqrt(variance + eps) in float64, the reference."""
    return np.asarray((x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps))
