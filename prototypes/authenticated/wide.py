"""Words of 64 + s bits as pairs of uint64 words, with exact sums, differences and products modulo 2^(64 + s)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.uint64]]
WORD = np.uint64
HALF = WORD(32)
LOW_HALF = WORD((1 << 32) - 1)
WORD_BYTES = 8


@dataclass(frozen=True, eq=False)
class Wide:
    """An array of words modulo 2^(64 + extra), with at least one axis: NumPy warns of scalars that wrap.

    low, high  uint64 arrays of one shape
    extra      s, from 0 to 64
    """

    low: Array
    high: Array
    extra: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.extra <= 64:
            raise ValueError(f"a word has 0 to 64 bits beyond 64, got {self.extra}")
        for part in (self.low, self.high):
            if part.dtype != WORD or part.shape != self.low.shape or not part.ndim:
                raise ValueError(f"both halves are uint64 arrays of one shape with at least one axis, got {part.dtype} "
                                 f"of shape {part.shape} beside {self.low.shape}")
        object.__setattr__(self, "high", self.high & WORD((1 << self.extra) - 1))

    @classmethod
    def of(cls, words: Array, extra: int = 64) -> Wide:
        """Words below 2^64, as they are."""
        return cls(words, np.zeros_like(words), extra)

    @classmethod
    def above(cls, words: Array, extra: int = 64) -> Wide:
        """Words times 2^64."""
        return cls(np.zeros_like(words), words, extra)

    @classmethod
    def of_ints(cls, values: Sequence[int], extra: int = 64) -> Wide:
        """Integers of any size, reduced."""
        low = np.array([v % 2**64 for v in values], dtype=WORD)
        return cls(low, np.array([(v >> 64) % 2**64 for v in values], dtype=WORD), extra)

    def ints(self) -> list[int]:
        """The words as integers, flat."""
        return [low + (high << 64) for low, high in zip(self.low.ravel().tolist(), self.high.ravel().tolist(),
                                                         strict=True)]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.low.shape

    def __add__(self, other: Wide) -> Wide:
        self._alike(other)
        low = self.low + other.low
        return Wide(low, self.high + other.high + (low < other.low), self.extra)

    def __neg__(self) -> Wide:
        return Wide(~self.low + WORD(1), ~self.high + (self.low == 0), self.extra)

    def __sub__(self, other: Wide) -> Wide:
        self._alike(other)
        return Wide(self.low - other.low, self.high - other.high - (self.low < other.low), self.extra)

    def __mul__(self, other: Wide) -> Wide:
        """Element by element, broadcasting."""
        self._alike(other)
        low, high = full_product(self.low, other.low)
        return Wide(low, high + self.low * other.high + self.high * other.low, self.extra)

    def times(self, words: Array) -> Wide:
        """The product with words below 2^64: one word product less."""
        low, high = full_product(self.low, words)
        return Wide(low, high + self.high * words, self.extra)

    def total(self) -> Wide:
        """The sum of all words, of shape (1,)."""
        low, high = self.low.ravel(), self.high.ravel()
        # of halves, so that no sum of fewer than 2^32 words wraps
        small, large = (low & LOW_HALF).sum(dtype=WORD), (low >> HALF).sum(dtype=WORD)
        parts = (Wide.of(np.array([small]), self.extra), Wide.of(np.array([large]), self.extra).times(_word(1 << 32)),
                 Wide.above(np.array([high.sum(dtype=WORD)]), self.extra))
        return parts[0] + parts[1] + parts[2]

    def tobytes(self) -> bytes:
        return self.low.astype("<u8").tobytes() + self.high.astype("<u8").tobytes()

    def _alike(self, other: Wide) -> None:
        if self.extra != other.extra:
            raise ValueError(f"words modulo 2^{64 + self.extra} do not mix with words modulo 2^{64 + other.extra}")


def full_product(a: Array, b: Array) -> tuple[Array, Array]:
    """The low and the high word of a b, by limbs of 32 bits."""
    a0, a1, b0, b1 = a & LOW_HALF, a >> HALF, b & LOW_HALF, b >> HALF
    p00, p01, p10 = a0 * b0, a0 * b1, a1 * b0
    middle = (p00 >> HALF) + (p01 & LOW_HALF) + (p10 & LOW_HALF)  # below 3 * 2^32
    low = (p00 & LOW_HALF) | (middle << HALF)
    return low, a1 * b1 + (p01 >> HALF) + (p10 >> HALF) + (middle >> HALF)


def _word(value: int) -> Array:
    return np.array([value], dtype=WORD)
