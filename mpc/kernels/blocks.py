"""ChaCha20 blocks under many keys of 128 bits at once, on the array library alone: the generator of point functions.

The cipher with a 16-byte key is Bernstein's (2008): other constants, and the key stands twice. Its block is a
generator here: 512 bits from a seed of 128, told apart by the counter and the nonce.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from secformer.mpc.kernels.words import Array

CONSTANTS = (0x61707865, 0x3120646E, 0x79622D36, 0x6B206574)  # "expand 16-byte k"
DOUBLE_ROUNDS = 10


def blocks(xp: Any, seeds: Array, counter: int, nonce: Array) -> Array:
    """The block of every seed: (16, n) uint32, word by word. seeds (4, n) and nonce (3, n) uint32, counter below 2^32.

    Row i of a quarter of the state is word i of its four, so that the four quarter rounds are one.
    """
    n = seeds.shape[1]
    start = xp.empty((4, 4, n), dtype=np.uint32)
    start[0] = xp.asarray(np.array(CONSTANTS, dtype=np.uint32))[:, None]
    start[1], start[2], start[3, 0], start[3, 1:] = seeds, seeds, np.uint32(counter), nonce
    a, b, c, d = start.copy()
    for _ in range(DOUBLE_ROUNDS):
        a, b, c, d = _rounds(a, b, c, d)
        b, c, d = b[[1, 2, 3, 0]], c[[2, 3, 0, 1]], d[[3, 0, 1, 2]]
        a, b, c, d = _rounds(a, b, c, d)
        b, c, d = b[[3, 0, 1, 2]], c[[2, 3, 0, 1]], d[[1, 2, 3, 0]]
    return (xp.stack([a, b, c, d]) + start).reshape(16, n)


def _rounds(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array, Array, Array]:
    """Four quarter rounds: a, b, c, d (4, n)."""
    for first, second in ((16, 12), (8, 7)):
        a = a + b
        d = _turned(d ^ a, first)
        c = c + d
        b = _turned(b ^ c, second)
    return a, b, c, d


def _turned(x: Array, bits: int) -> Array:
    return (x << np.uint32(bits)) | (x >> np.uint32(32 - bits))
