"""Words on the wire: how many bytes and keystream blocks they take, and masked words that are packed already."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = Any
BLOCK_BYTES = 64  # bytes of a ChaCha20 block: a keystream is addressed in whole blocks
PLANES = ((4, np.uint32), (2, np.uint16), (1, np.uint8))  # bytes and types of the pieces of shorter words


@dataclass(frozen=True)
class Sealed:
    """Masked words, and their low bits as the payload that opens them."""

    words: Array = field(repr=False)
    payload: Array = field(repr=False)

    @property
    def size(self) -> int:
        return int(self.words.size)


def unsealed(words: Array | Sealed) -> Array:
    """Masked words, whether they are sealed or not."""
    return words.words if isinstance(words, Sealed) else words


def whole_bytes(bits: int) -> int:
    """Bytes that hold so many bits."""
    return -(-bits // 8)


def drawn(count: int, bits: int) -> int:
    """Blocks of a stream that `count` uniform words of so many bits are drawn from: words of eight bytes, or planes as
    a payload has them, each of which starts at a block."""
    widths = [8] if whole_bytes(bits) == 8 else [width for width, _ in PLANES if whole_bytes(bits) & width]
    return sum(-(-count * width // BLOCK_BYTES) for width in widths)
