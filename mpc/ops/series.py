"""Fourier series of a shared value from one masked opening (SecFormer's masked sine, taken to its limit).

1. open u = (x + r) mod 2^(p+f), the period being 2^p                                  one round, p + f bits
2. cos(k w x) = cos(k w u) cos(k w r) + sin(k w u) sin(k w r), the sine likewise: the u-terms are public, the r-terms
   shared by the dealer, so any sum of harmonics is local

Error of a result with coefficients c: below 2^-mask_frac times the sum of |c|, from the dealer's rounding, and K
2^-public_frac for the rounded public part; both average out to about the root of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from secformer.mpc.dealer.kinds import SeriesMask, chunks
from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.party import Party
from secformer.mpc.shares import Share

if TYPE_CHECKING:
    from secformer.mpc.session import Session

LEAST_BITS = 3  # that a turn can be cut into quarters of


@dataclass(frozen=True)
class Series:
    """f(x) = linear x + sum over k = 0..K of cos[k] cos(k w x) + sin[k] sin(k w x), w = 2 pi / 2^period_bits.

    `cos` and `sin` have K + 1 entries (sin[0] counts for nothing); |f| < 2^magnitude on its domain. The dealer's
    cosines have `mask_frac` fractional bits, coefficients times public cosines `public_frac`: together those of the
    result, whose window is what the dealer's words must be right in, so fewer make them shorter.
    """

    period_bits: int
    cos: tuple[float, ...]
    sin: tuple[float, ...]
    linear: float = 0.0
    magnitude: int = 8
    mask_frac: int = 20
    public_frac: int = 18

    @property
    def frac(self) -> int:
        """Fractional bits of the result."""
        return self.mask_frac + self.public_frac

    @property
    def harmonics(self) -> int:
        return len(self.cos) - 1

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The series in float64, for the twin and for measuring fits."""
        w = 2.0 * np.pi / 2.0**self.period_bits
        out = self.linear * x + self.cos[0]
        for k in range(1, len(self.cos)):
            if self.cos[k]:
                out = out + self.cos[k] * np.cos((k * w) * x)
            if self.sin[k]:
                out = out + self.sin[k] * np.sin((k * w) * x)
        return out

    def needed_width(self, fixed: FixedPoint, frac: int) -> int:
        """Bits of x, given with `frac` fractional bits, that the linear term needs to be right in the result."""
        if not self.linear:
            return 0
        factor = linear_factor(self, frac)
        return fixed.window(self.frac, self.magnitude) - ((factor & -factor).bit_length() - 1)

    def wrap(self, session: Session, data: Any) -> Share:
        """The share that an evaluation of this series makes."""
        return Share(session, data, self.frac, session.fixed.window(self.frac, self.magnitude), self.magnitude)


def opening_bits(period_bits: int, frac: int) -> tuple[int, int]:
    """Bits to open and fractional bits to keep, for x with `frac` fractional bits: at least 16 of them where x has
    them, and as many more as the whole bytes give."""
    whole = -(-(period_bits + min(frac, 16)) // 8) * 8
    keep = min(frac, whole - period_bits)
    return period_bits + keep, keep


def kind_of(count: int, bits: int, functions: Sequence[Series], width: int, chunk: int) -> SeriesMask:
    return SeriesMask(count, bits, max(f.harmonics for f in functions), width, functions[0].mask_frac, chunk)


def linear_factor(function: Series, frac: int) -> int:
    """The slope as an integer at what is left between x's fractional bits and the result's. Raises RangeError when
    the slope is not representable there."""
    scaled = function.linear * 2.0 ** (function.frac - frac)
    if scaled != round(scaled):
        raise RangeError(
            f"a series' linear term must be a multiple of 2^{frac - function.frac} for x with {frac} "
            f"fractional bits, got {function.linear}; use a multiple of a power of two, or settle x first"
        )
    return round(scaled)


def series(party: Party, x: Share, functions: Sequence[Series], bits: int, keep: int, width: int) -> list[Any]:
    """Shares of f(x), with its `frac` fractional bits, mod 2^width. One round."""
    kind = kind_of(x.size, bits, functions, width, party.chunk)
    material = party.take(kind)
    words = x.data.reshape(-1) >> np.uint64(x.frac - keep)  # exact mod the period, up to one unit in the last place
    (u,) = party.open("series", [(material.masked("mask", words), bits)])                              # 1
    cos, sin = (np.zeros((len(functions), kind.harmonics)) for _ in range(2))
    for i, f in enumerate(functions):
        cos[i, : f.harmonics], sin[i, : f.harmonics] = f.cos[1:], f.sin[1:]
    out = party.kernels.xp.empty((len(functions), x.size), dtype=np.uint64)
    for j, (start, stop) in enumerate(chunks(x.size, kind.chunk)):                                     # 2
        harmonics = material.draw(f"words{j}").reshape(2 * kind.harmonics, stop - start)
        out[:, start:stop] = party.kernels.series(u[start:stop], bits, cos, sin, harmonics,
                                                     functions[0].public_frac)
    results = []
    for f, total in zip(functions, out, strict=True):
        if party.rank == 0:
            total = total + np.uint64(round(f.cos[0] * 2.0**f.frac) % 2**64)
        if f.linear:
            total = total + x.data.reshape(-1) * np.uint64(linear_factor(f, x.frac) % 2**64)
        results.append(total.reshape(x.shape))
    return results
