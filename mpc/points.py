"""Distributed point functions: a row of V words with a single 1, as two short keys that hide where the 1 is.

Party i expands its key to a row of words of Z_2^64, and both parties' rows sum to the unit vector. A key has 16 bytes
for its root, 17 bytes for each level of the tree, and 128 bytes for a leaf: 331 bytes for V = 30,522.

Each key alone says nothing about the point: its root seed is uniform, and every correction is masked by blocks under a
seed of the other party (Boyle, Gilboa, Ishai 2016, theorem 3.3, with early termination). That holds as long as ChaCha20
with a 128-bit key is a pseudo-random generator. `kernels/points` has the tree and how a party walks it.
"""

from __future__ import annotations

import numpy as np

from secformer.mpc.errors import RangeError
from secformer.mpc.kernels.blocks import blocks
from secformer.mpc.kernels.points import BLOCK, LEAF, LEAF_COUNTER, RIGHT, SALT_WORDS, SEED_WORDS, PointKeys, depth
from secformer.mpc.prg import Stream

ONE = np.uint32(1)


def keys_of(points: np.ndarray, columns: int, seed: bytes) -> tuple[PointKeys, PointKeys]:
    """Both parties' keys of rows with a 1 at each of `points` (N,), 0..columns - 1. A fresh seed serves once.

    For all tokens together, in step with the tree from the root down to the point's leaf:

    1. s_i <- uniform, t_i <- i                                             the roots of party i = 0, 1
    2. each level: both children of s_i; k is the one towards the point, l the other
         correction <- s_0^l xor s_1^l                                      so that both parties agree off the path
         turns: t_0^k xor t_1^k xor 1 for k, t_0^l xor t_1^l for l          and differ in their bits on the path
         s_i <- s_i^k xor t_i correction, t_i <- t_i^k xor t_i turn^k
    3. finals <- (t_0 - t_1) (e - g_0 + g_1)                                g_i the leaf's words, e the 1 in it

    Raises RangeError for a point outside of the row.
    """
    points, n = np.asarray(points, dtype=np.int64), len(points)
    if not n or points.min() < 0 or points.max() >= columns:
        given = f"{points.min()} to {points.max()}" if n else "none"
        raise RangeError(f"one or more points lie in a row of {columns} words, 0 to {columns - 1}; got {given}")
    drawn = Stream(seed, "points").read(4 * (SALT_WORDS + 2 * SEED_WORDS * n)).view(np.uint32)           # 1
    salt, roots = drawn[:SALT_WORDS], drawn[SALT_WORDS:].reshape(2, n, SEED_WORDS)
    nonce = np.empty((3, 2, n), dtype=np.uint32)
    nonce[0], nonce[1], nonce[2] = salt[0], salt[1], np.arange(n, dtype=np.uint32)

    def made(seeds: np.ndarray, counter: int) -> np.ndarray:
        """(16, 2, N) of seeds (4, 2, N)."""
        return np.asarray(blocks(np, seeds.reshape(SEED_WORDS, -1), counter, nonce.reshape(3, -1)).reshape(16, 2, n))

    seeds = np.ascontiguousarray(roots.transpose(2, 0, 1))
    bits = np.repeat(np.arange(2, dtype=np.uint32)[:, None], n, axis=1)
    corrections, turns = np.empty((n, depth(columns), SEED_WORDS), np.uint32), np.empty((n, depth(columns)), np.uint8)
    for level in range(depth(columns)):                                                                  # 2
        found = made(seeds, level)
        right = ((points // LEAF >> level) & 1).astype(bool)
        keep, lose = (np.where(to, found[4:8], found[:4]) for to in (right, ~right))
        correction = lose[:, 0] ^ lose[:, 1]
        left_bits, right_bits = found[8] & ONE, found[9] & ONE
        left_turn = left_bits[0] ^ left_bits[1] ^ ~right
        right_turn = right_bits[0] ^ right_bits[1] ^ right
        corrections[:, level], turns[:, level] = correction.T, left_turn + RIGHT * right_turn
        seeds = keep ^ bits * correction[:, None]
        bits = np.where(right, right_bits, left_bits) ^ bits * np.where(right, right_turn, left_turn)
    words = np.stack([made(seeds, LEAF_COUNTER + b) for b in range(LEAF // BLOCK)])                      # 3
    leaf = np.ascontiguousarray(words.transpose(2, 3, 0, 1)).reshape(2, n, -1).view(np.uint64)  # (2, N, LEAF)
    unit = (points[:, None] % LEAF == np.arange(LEAF)).astype(np.uint64)
    finals = unit - leaf[0] + leaf[1]
    finals = np.where(bits[0][:, None] == ONE, finals, np.uint64(0) - finals)
    first, second = (PointKeys(rank, salt, roots[rank], corrections, turns, finals) for rank in (0, 1))
    return first, second
