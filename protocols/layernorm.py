"""LayerNorm over the last axis: (x - mean) / sqrt(variance + eps) gamma + beta.

N rows, C channels. Mean and variance need no division: with t the row sum of x, C x - t and C sum(x^2) - t^2 are exact
integers of products that are opened together, so one round gives both the deviations times gamma and the variance.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.papers import cite
from secformer.protocols.ranges import Range, Site, bits, positive
from secformer.protocols.rsqrt import rsqrt_goldschmidt, rsqrt_series

GAMMA_BITS = 3       # |gamma| is promised below 2^3 times what a row's largest deviation leaves unused
ROOT_BITS = 5        # inverse roots settle at 2^5 or more
MOST_MAGNITUDE = 30  # of a product of settled values, in whole words


class InverseRoot(Protocol):
    """2^scale_bits / sqrt(v) for v in the domain."""

    def __call__(self, s: Session, v: Share, domain: Range, *, scale_bits: int) -> Share: ...


@cite("ba2016layernorm", "layer normalisation")
@cite("luo2024secformer", "masked sine, section 3, taken to 1/sqrt")
def layernorm_series(s: Session, x: Share, gamma: Share, beta: Share, eps: float, at: Site) -> Share:
    """LayerNorm with 1/sqrt by series: x (N, C), gamma, beta (C,) -> (N, C), settled.

    6 rounds (10 where at["variance"] spans a ratio above about 300); about 35 bytes an element.
    Error: that of `rsqrt_series`, 2e-5 relative to the result. Takes a pending x.
    """
    return _layernorm(s, x, gamma, beta, eps, at, rsqrt_series)


@cite("luo2024secformer", "LayerNorm protocol")
def layernorm_goldschmidt(s: Session, x: Share, gamma: Share, beta: Share, eps: float, at: Site) -> Share:
    """LayerNorm with SecFormer's Goldschmidt inverse root: x (N, C), gamma, beta (C,) -> (N, C), settled.

    3 iterations + 6 rounds, 39 with the paper's 11 (eta = 2000, where at["variance"] allows); about 35 bytes an
    element. Error: that of `rsqrt_goldschmidt`, 1e-4 relative to the result. Takes a pending x.
    """
    return _layernorm(s, x, gamma, beta, eps, at, rsqrt_goldschmidt)


def _layernorm(
    s: Session, x: Share, gamma: Share, beta: Share, eps: float, at: Site, inverse_root: InverseRoot
) -> Share:
    """1. t <- row sums of x                                                     one round, which settles x
    2. x^2, t^2, x gamma, t gamma                                                one round
    3. v <- (C sum(x^2) - t^2) / 4^c = var (C/2^c)^2;  g <- (C x gamma - t gamma) / 2^c, c = ceil(log2 C)
    4. r <- 1 / sqrt(v), one a row
    5. return g r + beta, since C/2^c cancels                                    three rounds
    """
    channels = x.shape[-1]
    c = bits(channels)
    ratio = channels / 2.0**c
    variance = positive(at, "variance")
    domain = Range((variance.low + eps) * ratio**2, (variance.high + eps) * ratio**2)
    deviation = bits(math.sqrt(channels * variance.high)) + GAMMA_BITS       # of (x - mean) gamma, the worst case
    magnitude = min(MOST_MAGNITUDE, c + max(deviation, 1 + bits(channels * variance.high)))
    (x,) = s.settle(x)                                                                           # 1
    t = x.sum(-1, keepdims=True)
    xx, tt, xg, tg = s.mul_many([(x, x), (t, t), (x, gamma), (t, gamma)], magnitude=magnitude)   # 2
    v = (xx.sum(-1, keepdims=True) * channels - tt + eps * channels**2) * 4.0**-c                # 3
    root_bits = max(0, ROOT_BITS + math.ceil(math.log2(domain.high) / 2.0))
    lift = max(0, 2 - math.floor(math.log2(domain.low) / 2.0))               # g settles finer where 1/sqrt is large
    g = (xg * channels - tg) * 2.0 ** (lift - c)
    r = inverse_root(s, v, domain, scale_bits=root_bits)                                         # 4
    result = bits(math.sqrt(channels)) + GAMMA_BITS
    y = s.mul(g, r, magnitude=min(MOST_MAGNITUDE, result + lift + root_bits)) * 2.0 ** -(lift + root_bits)
    (y,) = s.settle(y + beta.promise(y.magnitude))                                                                    # 5
    return y


def layernorm_exact(x: np.ndarray, eps: float) -> np.ndarray:
    """(x - mean) / sqrt(variance + eps) in float64, the reference."""
    return np.asarray((x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps))
