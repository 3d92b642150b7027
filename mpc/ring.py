"""Z_2^64, the ring that shares live in: how wide its words are, their low bits, the array types that hold them.

The exact matrix product of words is a kernel (`kernels`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

WORD_BITS = 64
WORD = np.uint64


@lru_cache(maxsize=WORD_BITS + 1)
def mask(bits: int) -> np.uint64:
    """The word with its low `bits` bits set."""
    return WORD((1 << bits) - 1)


def word_type(width: int) -> type[np.unsignedinteger[Any]]:
    """The array type for words that need be right mod 2^width only: uint32 for widths up to 32, else uint64."""
    return np.uint32 if width <= 32 else np.uint64
