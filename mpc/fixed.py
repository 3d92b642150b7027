"""Fixed point: reals as words of Z_2^64 with `frac` fractional bits, two's complement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secformer.mpc.errors import RangeError
from secformer.mpc.ring import WORD_BITS


@dataclass(frozen=True)
class FixedPoint:
    """The session's number format.

    frac       fractional bits of a settled value (SecFormer: 16)
    magnitude  values are promised to lie in (-2^magnitude, 2^magnitude); it sets how many bits a product or a
               truncation opens. Protocols that know better say so with a share's own magnitude.
    """

    frac: int = 16
    magnitude: int = 14

    def __post_init__(self) -> None:
        if not 4 <= self.frac <= 24:
            raise RangeError(f"fractional bits must lie in 4..24, got {self.frac}; 16 is the usual choice")
        if not 1 <= self.magnitude <= self.whole:
            raise RangeError(
                f"with {self.frac} fractional bits a product leaves {self.whole} bits of magnitude, "
                f"got {self.magnitude}; lower frac or magnitude"
            )

    @property
    def whole(self) -> int:
        """The largest magnitude of a product of settled values: it fills a word."""
        return WORD_BITS - 2 - 2 * self.frac

    def window(self, frac: int, magnitude: int) -> int:
        """Bits, in whole bytes, that hold |v| < 2^magnitude at `frac` fractional bits with the truncation's headroom.

        Raises RangeError when more than 64 would be needed.
        """
        need = frac + magnitude + 2
        if need > WORD_BITS:
            raise RangeError(
                f"a value below 2^{magnitude} with {frac} fractional bits needs {need} bits, words have {WORD_BITS}; "
                f"settle operands first or state a smaller magnitude"
            )
        return -(-need // 8) * 8


def encode(x: np.ndarray | float, frac: int) -> np.ndarray:
    """Reals to words: round(x 2^frac) mod 2^64. Any shape. Raises RangeError for NaN, infinity, |x| >= 2^(63-frac)."""
    scaled = np.rint(np.ldexp(np.asarray(x, dtype=np.float64), frac))
    if scaled.size and not np.abs(scaled).max() < 2.0 ** (WORD_BITS - 1):
        worst = np.asarray(x, dtype=np.float64)
        shown = "a NaN" if np.isnan(worst).any() else f"{worst.flat[np.abs(worst).argmax()]!r}"
        raise RangeError(
            f"words with {frac} fractional bits hold |x| < 2^{WORD_BITS - 1 - frac}, got {shown}; "
            f"check the input for NaN and infinity, or use fewer fractional bits"
        )
    return scaled.astype(np.int64).view(np.uint64)


def decode(words: np.ndarray, frac: int, width: int = WORD_BITS) -> np.ndarray:
    """Words to float64, reading the low `width` bits as two's complement. Exact up to 53 bits."""
    signed = np.left_shift(words.astype(np.uint64, copy=False), np.uint64(WORD_BITS - width)).view(np.int64)
    return np.ldexp((signed >> np.int64(WORD_BITS - width)).astype(np.float64), -frac)
