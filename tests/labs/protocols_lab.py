"""What the protocols' tests share: operands, formulas, and how a fit or an inverse is judged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from secformer.mpc.shares import Share
from secformer.protocols import fits
from secformer.protocols.quantities import NORM
from secformer.protocols.ranges import Range, Site
from secformer.protocols.rmsnorm import rmsnorm_exact

PENDING = 32  # fractional bits of a product that has not been settled
BITS = 10     # inverses are asked for times 2^10
Run = Callable[..., np.ndarray]


def grid(low: float, high: float, n: int = 1501) -> np.ndarray:
    """n values from low to high."""
    return np.linspace(low, high, n)


def worst(found: fits.Fit, fn: fits.Function, relative: bool = False) -> float:
    """The largest error on a grid that the fit has not seen."""
    x = np.linspace(found.low, found.high, 30_011)
    wrong = np.abs(found.series(x) - fn(x))
    return float((wrong / np.abs(fn(x)) if relative else wrong).max())


def norm_site(x: np.ndarray, gamma: np.ndarray, **others: Range) -> Site:
    """The ranges that a LayerNorm of x needs, as they are, or as `others` says."""
    found = {q.name: q.of(np, x, gamma, gamma) for q in NORM}
    return {name: Range(float(v.min()), float(v.max())) for name, v in found.items()} | others


def squares_case(seed: int, n: int, c: int, low: float, high: float) -> tuple[np.ndarray, Site]:
    """Rows whose mean squares cover [low, high] exactly, and the ranges with a profile's margin."""
    x = rmsnorm_exact(np.random.default_rng(seed).normal(0.3, 1.0, (n, c)), 0.0)
    x = x * np.sqrt(np.geomspace(low, high, n))[:, None]
    reach = float(np.abs(x).max())
    return x, {"input": Range(-reach, reach), "mean_square": Range(low / 1.5, high * 1.5)}


def limit(x: np.ndarray, squarings: int) -> np.ndarray:
    """(1 + x / 2^squarings)^(2^squarings), by squaring."""
    b = 1.0 + x / 2**squarings
    for _ in range(squarings):
        b = b * b
    return b


def inverse(run: Run, protocol: Callable[..., Share], y: np.ndarray, domain: Range, frac: int) -> np.ndarray:
    """What a protocol makes of y, one a row, with `frac` fractional bits."""
    got = run(lambda s, y: protocol(s, y, domain, scale_bits=BITS), y[:, None], fracs=[frac])
    return np.asarray(got[:, 0] / 2.0**BITS)
