"""Z_2^64: words, windows and the exact matrix product."""

from __future__ import annotations

import numpy as np

WORD_BITS = 64
WORD = np.uint64


def window_mask(bits: int) -> np.uint64:
    """The low `bits` bits set."""
    return WORD((1 << bits) - 1)
