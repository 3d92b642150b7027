"""Rotary position embedding: each pair of a head's entries turns by an angle that grows with the token's position.

N tokens, H heads, D values per head. Positions are public, so the rotation is a public linear map, and local. A
`Function` of one share, positions and how fast pairs turn:

    turned = f.recipe.of(ROPE)(s, x, positions, Turning(10000.0), f.at("layer.0.rope"))
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Turning:
    """How fast the pairs of a head's D entries turn: pair i by theta^(-2 i / D) radians per token.

    theta   the base, above 1
    factor  what frequencies are divided by, for texts that are longer than those of training
    band    None: all frequencies are divided. Else (low, high, original), as Llama 3 has it: only those that turn fewer
            than `low` times in `original` tokens are; those that turn more than `high` times stay, and between both
            the division fades
    """

    theta: float
    factor: float = 1.0
    band: tuple[float, float, float] | None = None

    def frequencies(self, size: int) -> np.ndarray:
        """Radians per token of each pair of `size` entries: (size / 2,), rounded to single precision at each step, as
        models are trained."""
        single = np.float32
        steps = np.arange(0, size, 2).astype(single) / single(size)
        full = single(1.0) / np.power(self.theta, steps.astype(np.float64)).astype(single)
        divided = full / single(self.factor)
        if self.band is None:
            return divided
        low, high, original = self.band
        lengths = single(2.0 * math.pi) / full  # tokens per turn
        kept = (single(original) / lengths - single(low)) / single(high - low)
        faded = (single(1.0) - kept) * divided + kept * full
        between = (lengths >= original / high) & (lengths <= original / low)
        return np.asarray(np.where(between, faded, np.where(lengths > original / low, divided, full)))


def angles(positions: np.ndarray, size: int, turning: Turning) -> np.ndarray:
    """The angle of each pair of `size` entries at positions (N,): (N, size / 2), in radians, as a product in single
    precision: at position 1,000 an exact angle would differ by up to 1e-4."""
    return np.asarray(positions.astype(np.float32)[:, None] * turning.frequencies(size), dtype=np.float64)


def rotations(positions: np.ndarray, size: int, turning: Turning, frac: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the angles at positions (N,), as whole numbers of 2^-frac: (N, size / 2) each."""
    t = angles(positions, size, turning)
    cos, sin = (np.rint(np.ldexp(of(t), frac)).astype(np.int64) for of in (np.cos, np.sin))
    return cos, sin


def all_rotations(longest: int, size: int, turning: Turning, frac: int) -> Iterator[np.ndarray]:
    """All that `rotations` may answer in a model of `longest` positions whose numbers have `frac` fractional bits."""
    for start in range(0, longest, AT_ONCE):
        positions = np.arange(start, min(longest, start + AT_ONCE))
        for finer in range(min(frac, MOST_BITS), MOST_BITS + 1):
            yield from rotations(positions, size, turning, finer)


@cite("su2021roformer", "rotary position embedding, in halves")
@needs(INPUT)
def rope(s: Session, x: Share, positions: np.ndarray, turning: Turning, at: Site) -> Share:
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
    texts that grow, parties compare `all_rotations`.
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
    cos, sin = (of[:, None, :] for of in rotations(positions, size, turning, finer))             # 1
    a, b = x[..., :half], x[..., half:]
    turned = s.concatenate([a * cos - b * sin, b * cos + a * sin], -1) * 2.0**-finer             # 2
    turned = turned.promise(magnitude)
    return turned if certain else s.checked(turned, -reach, reach, INPUT.name)


@cite("su2021roformer", "rotary position embedding, in halves")
def rope_exact(s: Session, x: Share, positions: np.ndarray, turning: Turning, at: Site) -> Share:
    """The same in float64, in the twin only."""
    size, half = _sizes(x.shape, positions)
    t = angles(positions, size, turning)[:, None, :]

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
