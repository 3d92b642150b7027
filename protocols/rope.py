"""Rotary position embedding: each pair of a head's entries turns by an angle that grows with the token's position.

N tokens, H heads, D values per head. Positions are public, so the rotation is a public linear map, and local. A
`Function` of one share, positions and the base of angles:

    turned = f.recipe.of(ROPE)(s, x, positions, 10000.0, f.at("layer.0.rope"))
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from secformer.mpc.errors import ShapeError
from secformer.mpc.ring import WORD_BITS
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.papers import cite
from secformer.protocols.quantities import INPUT, MOST, measured, needs
from secformer.protocols.ranges import Range, Site, bits, roomy, with_air
from secformer.protocols.recipes import Function

MOST_BITS = 24  # fractional bits of cosines and sines, at most
AT_ONCE = 1024  # positions: bounds memory


def angles(positions: np.ndarray, size: int, theta: float) -> np.ndarray:
    """The angle of each pair of `size` entries at positions (N,): (N, size / 2), in radians.

    position / theta^(2 i / size), rounded to single precision at each step, as models are trained: at position 1,000 an
    exact angle would differ by up to 1e-4.
    """
    steps = np.arange(0, size, 2).astype(np.float32) / np.float32(size)
    powers = np.power(theta, steps.astype(np.float64)).astype(np.float32)
    return np.asarray(positions.astype(np.float32)[:, None] * (np.float32(1.0) / powers), dtype=np.float64)


def turning(positions: np.ndarray, size: int, theta: float, frac: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the angles at positions (N,), as whole numbers of 2^-frac: (N, size / 2) each."""
    t = angles(positions, size, theta)
    cos, sin = (np.rint(np.ldexp(of(t), frac)).astype(np.int64) for of in (np.cos, np.sin))
    return cos, sin


def turnings(longest: int, size: int, theta: float, frac: int) -> Iterator[np.ndarray]:
    """All that `turning` may answer in a model of `longest` positions whose numbers have `frac` fractional bits."""
    for start in range(0, longest, AT_ONCE):
        positions = np.arange(start, min(longest, start + AT_ONCE))
        for finer in range(min(frac, MOST_BITS), MOST_BITS + 1):
            yield from turning(positions, size, theta, finer)


@cite("su2021roformer", "rotary position embedding, in halves")
@needs(INPUT)
def rope(s: Session, x: Share, positions: np.ndarray, theta: float, at: Site) -> Share:
    """x (N, H, D) in at["input"], each token turned by its position (N,).   No round, no byte; but see below.

    With (a, b) the halves of a head's D entries, and t the angles:
    1. cos, sin <- cos(t), sin(t), rounded to as many fractional bits as x has room for, 24 at most
    2. return (a cos - b sin, b cos + a sin)

    A rotation keeps the length of each pair, so no entry exceeds sqrt 2 times the range, which is what the result is
    promised to; a guarded session checks it. Where at["most"] says what no text exceeds, and words hold that, it is
    promised to that and nothing is checked. Any domain. Error: (|a| + |b|) 2^-25 for ranges to 36, 2^-17 at worst.
    Takes a settled or a pending x, to which it adds these bits; the result is pending. A pending x should fill a word:
    state the magnitude `fixed.whole`. Where x has no room for `frac` bits, x is settled before: one round, 4 bytes per
    element.

    Both parties compute the angles. The plan's digest holds them, so parties that differ in a bit do not start; for
    texts that grow, parties compare `turnings`.
    Raises ShapeError for an odd D, or positions of another length.
    """
    size, half = _sizes(x.shape, positions)
    reach = math.sqrt(2.0) * with_air(measured(at, INPUT)).reach
    magnitude = max(1, bits(reach), roomy(Range(-reach, reach)) if s.guarded else 1)
    most = bits(math.sqrt(2.0) * at[MOST.name].high) if MOST.name in at else WORD_BITS
    if certain := most <= x.width - 2 - x.frac - MOST_BITS:
        magnitude = max(1, most)
    x = x.promise(magnitude)
    if x.width - 2 - x.frac - magnitude < s.fixed.frac:
        (x,) = s.settle(x)
    finer = min(MOST_BITS, x.width - 2 - x.frac - magnitude)
    cos, sin = (of[:, None, :] for of in turning(positions, size, theta, finer))                 # 1
    a, b = x[..., :half], x[..., half:]
    turned = s.concatenate([a * cos - b * sin, b * cos + a * sin], -1) * 2.0**-finer             # 2
    turned = turned.promise(magnitude)
    return turned if certain else s.checked(turned, -reach, reach, INPUT.name)


@cite("su2021roformer", "rotary position embedding, in halves")
def rope_exact(s: Session, x: Share, positions: np.ndarray, theta: float, at: Site) -> Share:
    """The same in float64, in the twin only."""
    size, half = _sizes(x.shape, positions)
    t = angles(positions, size, theta)[:, None, :]

    def turned(v: np.ndarray) -> np.ndarray:
        a, b = v[..., :half], v[..., half:]
        return np.concatenate([a * np.cos(t) - b * np.sin(t), b * np.cos(t) + a * np.sin(t)], axis=-1)

    return s.apply(turned, x)


def _sizes(shape: tuple[int, ...], positions: np.ndarray) -> tuple[int, int]:
    """D and its half. Raises ShapeError."""
    if len(shape) != 3 or shape[-1] % 2 or positions.shape != shape[:1]:
        raise ShapeError(f"rope takes x (N, H, D) with an even D and positions (N,), got {shape} and "
                         f"{positions.shape}")
    return shape[-1], shape[-1] // 2


ROPE = Function("rope", rope, rope_exact)
