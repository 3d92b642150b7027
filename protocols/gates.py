"""Activations of the form x g(x), where g rises from 0 to 1: SiLU, and GeLU by its two short formulas.

GeLU by erf is a field of every recipe (`gelu`). These are not GeLU: the formula with tanh differs from it by up to
5e-4, the one with a sigmoid by up to 2e-2. So each has a fit of its own, and no recipe replaces it. They are not
declared `faithful`, which would be taken as faithful to GeLU where one stands in its place.

    inner = f.recipe.of(SILU)(s, inner, f.at("layer.0.silu"))
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from secformer.mpc.fixed import FixedPoint
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.fits import Fit
from secformer.protocols.gelu import gate, gate_fit, gate_magnitude
from secformer.protocols.papers import cite
from secformer.protocols.quantities import INPUT, measured, needs, opens
from secformer.protocols.ranges import Site
from secformer.protocols.recipes import Function

TANH_CUBE, TANH_SCALE = 0.044715, math.sqrt(2.0 / math.pi)  # GeLU = x/2 (1 + tanh(TANH_SCALE (x + TANH_CUBE x^3)))
QUICK = 1.702                                               # GeLU = x sigmoid(QUICK x)
# Wide ranges are clipped to this size: beyond it the function is 0 or x, to 2e-6 or less.
SILU_LIMIT, TANH_LIMIT, QUICK_LIMIT = 16.0, 6.0, 10.0


def _silu_magnitude(fixed: FixedPoint, at: Site) -> int:
    return gate_magnitude(fixed, at, silu_fit)


def _gelu_new_magnitude(fixed: FixedPoint, at: Site) -> int:
    return gate_magnitude(fixed, at, gelu_new_fit)


def _quick_gelu_magnitude(fixed: FixedPoint, at: Site) -> int:
    return gate_magnitude(fixed, at, quick_gelu_fit)


@cite("hendrycks2016gelu", "SiLU")
@cite("luo2024secformer", "masked sine, taken to many harmonics")
@cite("huybrechs2010", "Fourier extension of SiLU")
@needs(INPUT)
@opens(_silu_magnitude)
def silu(s: Session, x: Share, at: Site) -> Share:
    """x sigmoid(x) for x in at["input"].   1 round; 3 bytes per element.

    1. where the range exceeds [-112, 112]: clip x to [-16, 16]           two rounds, about 10 bytes per element
    2. open x mod P; sum the harmonics of the fit of silu(x) - x/2; add x/2, which is local

    Any domain. Error, absolute: at most 1e-4 in the twin (the fit's tolerance), 2e-4 on shares. Takes a pending x; the
    result has a truncation pending, unless x was clipped.
    """
    return gate(s, x, measured(at, INPUT), silu_fit, SILU_LIMIT)


@cite("hendrycks2016gelu", "GeLU by tanh")
@cite("luo2024secformer", "masked sine, taken to many harmonics")
@cite("huybrechs2010", "Fourier extension of GeLU by tanh")
@needs(INPUT)
@opens(_gelu_new_magnitude)
def gelu_new(s: Session, x: Share, at: Site) -> Share:
    """x/2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) for x in at["input"].   1 round; 3 bytes per element.

    1. where the range exceeds [-112, 112]: clip x to [-6, 6]             two rounds, about 10 bytes per element
    2. open x mod P; sum the harmonics of the fit of the function less x/2; add x/2, which is local

    Any domain. Error, absolute: at most 1e-4 in the twin (the fit's tolerance), 2e-4 on shares. Takes a pending x; the
    result has a truncation pending, unless x was clipped.
    """
    return gate(s, x, measured(at, INPUT), gelu_new_fit, TANH_LIMIT)


@cite("hendrycks2016gelu", "GeLU by a sigmoid")
@cite("luo2024secformer", "masked sine, taken to many harmonics")
@cite("huybrechs2010", "Fourier extension of GeLU by a sigmoid")
@needs(INPUT)
@opens(_quick_gelu_magnitude)
def quick_gelu(s: Session, x: Share, at: Site) -> Share:
    """x sigmoid(1.702 x) for x in at["input"].   1 round; 3 bytes per element.

    1. where the range exceeds [-112, 112]: clip x to [-10, 10]           two rounds, about 10 bytes per element
    2. open x mod P; sum the harmonics of the fit of the function less x/2; add x/2, which is local

    Any domain. Error, absolute: at most 1e-4 in the twin (the fit's tolerance), 2e-4 on shares. Takes a pending x; the
    result has a truncation pending, unless x was clipped.
    """
    return gate(s, x, measured(at, INPUT), quick_gelu_fit, QUICK_LIMIT)


@lru_cache(maxsize=256)
def silu_fit(low: float, high: float) -> Fit:
    """SiLU's fit for a domain. Raises RangeError where it is too wide."""
    return gate_fit(silu_exact, low, high)


@lru_cache(maxsize=256)
def gelu_new_fit(low: float, high: float) -> Fit:
    """The fit of GeLU by tanh for a domain. Raises RangeError where it is too wide."""
    return gate_fit(gelu_new_exact, low, high)


@lru_cache(maxsize=256)
def quick_gelu_fit(low: float, high: float) -> Fit:
    """The fit of GeLU by a sigmoid for a domain. Raises RangeError where it is too wide."""
    return gate_fit(quick_gelu_exact, low, high)


def silu_exact(x: np.ndarray) -> np.ndarray:
    """SiLU in float64, the reference. sigmoid(x) = (1 + tanh(x/2)) / 2, which no x overflows."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(0.5 * x)))


def gelu_new_exact(x: np.ndarray) -> np.ndarray:
    """GeLU by tanh in float64, the reference."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(TANH_SCALE * (x + TANH_CUBE * x * x * x))))


def quick_gelu_exact(x: np.ndarray) -> np.ndarray:
    """GeLU by a sigmoid in float64, the reference."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(0.5 * QUICK * x)))


@cite("hendrycks2016gelu", "SiLU")
def exact_silu(s: Session, x: Share, at: Site) -> Share:
    """SiLU in float64, in the twin only."""
    return s.apply(silu_exact, x)


@cite("hendrycks2016gelu", "GeLU by tanh")
def exact_gelu_new(s: Session, x: Share, at: Site) -> Share:
    """GeLU by tanh in float64, in the twin only."""
    return s.apply(gelu_new_exact, x)


@cite("hendrycks2016gelu", "GeLU by a sigmoid")
def exact_quick_gelu(s: Session, x: Share, at: Site) -> Share:
    """GeLU by a sigmoid in float64, in the twin only."""
    return s.apply(quick_gelu_exact, x)


SILU = Function("silu", silu, exact_silu)
GELU_NEW = Function("gelu_new", gelu_new, exact_gelu_new)
QUICK_GELU = Function("quick_gelu", quick_gelu, exact_quick_gelu)
