"""Rotary position embedding: each pair of a head's entries turns by an angle that grows with the token's position.

N tokens, H heads, D values per head. Positions are public, so the rotation is a public linear map, and local.
"""

from __future__ import annotations

import numpy as np

from secformer.mpc.errors import ShapeError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.papers import cite


def angles(positions: np.ndarray, size: int, theta: float) -> np.ndarray:
    """The angle of each pair of `size` entries at positions (N,): (N, size / 2), in radians.

    position / theta^(2 i / size), rounded to single precision at each step, as models are trained: at position 1,000 an
    exact angle would differ by up to 1e-4.
    """
    steps = np.arange(0, size, 2).astype(np.float32) / np.float32(size)
    powers = np.power(theta, steps.astype(np.float64)).astype(np.float32)
    return np.asarray(positions.astype(np.float32)[:, None] * (np.float32(1.0) / powers), dtype=np.float64)


@cite("su2021roformer", "rotary position embedding, in halves")
def rope(s: Session, x: Share, positions: np.ndarray, theta: float) -> Share:
    """x (N, H, D), each token turned by its position (N,).   No round, no byte; see below where words are full.

    With (a, b) the halves of a head's D entries, and t the angles:
    1. return (a cos t - b sin t, b cos t + a sin t)

    A rotation keeps the length of each pair, so the result is promised as x is: no entry exceeds its pair's length,
    which promises leave room for. Any domain. Error: (|a| + |b|) 2^-frac, since cosines and sines have frac - 1
    fractional bits; no other in the twin. Takes a pending x, to which it adds these bits, so a product that is rotated
    should fill a word: state the magnitude `fixed.whole`, then promise what it holds. Where they do not fit, x is
    settled before: one round, 4 bytes per element.

    Both parties compute the angles. The plan's digest holds them, so parties that differ in a bit do not start.
    Raises ShapeError for an odd D, or positions of another length.
    """
    size = x.shape[-1]
    if x.ndim != 3 or size % 2 or positions.shape != x.shape[:1]:
        raise ShapeError(f"rope takes x (N, H, D) with an even D and positions (N,), got {x.shape} and "
                         f"{positions.shape}")
    magnitude, half = x.magnitude, size // 2
    if x.width - x.frac - s.fixed.frac < magnitude + 2:
        (x,) = s.settle(x)
    t = angles(positions, size, theta)[:, None, :]
    cos, sin = np.cos(t), np.sin(t)
    a, b = x[..., :half], x[..., half:]
    turned = s.concatenate([a, b, b, a], -1) * np.concatenate([cos, cos, -sin, sin], -1)         # 1
    return (turned[..., :size] + turned[..., size:]).promise(magnitude)
