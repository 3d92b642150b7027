"""Keys of distributed point functions as arrays, and the rows that they expand to, on the array library alone.

`mpc/points` makes the keys and says why they hide the points. A row of V words is cut into leaves of LEAF words. The
leaves stand below a binary tree, in which bit l of a leaf's number, from the lowest on, says where to turn in level l:
so the children of nodes 0..n-1 are nodes 0..n-1 (left) and n..2n-1 (right) of the next level.

A node has a seed and a bit. One ChaCha20 block (see `blocks`) of its seed gives, with the level as the counter, the
children's seeds (words 0..3 and 4..7) and bits (the lowest of words 8 and 9); a node whose bit is 1 corrects them by
the level's correction. Of a leaf, blocks LEAF_COUNTER, ... give its words; where its bit is 1, `finals` are added.
Party 1 negates them. The nonce is the request's salt and the token's number.

N tokens, D levels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from secformer.mpc.kernels.blocks import blocks
from secformer.mpc.kernels.words import Array

LEAF = 16                 # words of a leaf: two blocks; more make longer keys, fewer a larger tree
BLOCK = 8                 # words of 64 bits in a block
LEAF_COUNTER = 1 << 31    # counters below are the tree's levels
SEED_WORDS, SALT_WORDS = 4, 2
RIGHT, MOST_TURN = 2, 3   # `turns`: bit 0 corrects the left child's bit, bit 1 the right child's


@dataclass(frozen=True, eq=False)
class PointKeys:
    """One party's keys of N points. Only `rank` and `seeds` differ between the two parties.

    salt         (2,) uint32, the same for all tokens
    seeds        (N, 4) uint32, of the roots
    corrections  (N, D, 4) uint32, of seeds, by level
    turns        (N, D) uint8, of bits: 0..3
    finals       (N, LEAF) uint64, added to a leaf
    """

    rank: int
    salt: np.ndarray = field(repr=False)
    seeds: np.ndarray = field(repr=False)
    corrections: np.ndarray = field(repr=False)
    turns: np.ndarray = field(repr=False)
    finals: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def depth(self) -> int:
        return int(self.turns.shape[1])


def leaves(columns: int) -> int:
    """The number of leaves of a row of so many words."""
    return -(-columns // LEAF)


def depth(columns: int) -> int:
    """The number of levels above the leaves of a row of so many words."""
    return (leaves(columns) - 1).bit_length()


def rows(xp: Any, keys: PointKeys, first: int, out: Array) -> None:
    """Writes one party's shares of the rows of tokens first, ..., first + n - 1 to out (n, V) uint64."""
    n, columns = out.shape
    here = slice(first, first + n)
    seeds = xp.asarray(np.ascontiguousarray(keys.seeds[here].T))[:, :, None]  # (4, n, nodes)
    bits, tokens = xp.full((n, 1), keys.rank, dtype=np.uint32), xp.arange(first, first + n, dtype=np.uint32)
    corrections, turns, finals = (xp.asarray(v[here]) for v in (keys.corrections, keys.turns, keys.finals))
    for level in range(keys.depth):
        found = _blocks(xp, keys, seeds, tokens, level)
        fix = corrections[:, level].T[:, :, None] * bits
        turn = turns[:, level, None].astype(np.uint32)
        left = (found[8] & np.uint32(1)) ^ (bits & turn)
        right = (found[9] & np.uint32(1)) ^ (bits & (turn >> np.uint32(1)))
        seeds = xp.concatenate([found[:4] ^ fix, found[4:8] ^ fix], axis=2)
        bits = xp.concatenate([left, right], axis=1)
    seeds, bits = seeds[:, :, : leaves(columns)], bits[:, : leaves(columns)]
    for block in range(LEAF // BLOCK):
        found = _blocks(xp, keys, seeds, tokens, LEAF_COUNTER + block)
        for word in range(block * BLOCK, min(columns, (block + 1) * BLOCK)):
            low, high = (half.astype(np.uint64) for half in found[2 * (word % BLOCK) :][:2])
            words = (low | (high << np.uint64(32))) + bits.astype(np.uint64) * finals[:, word, None]
            own = out[:, word::LEAF]
            own[...] = (np.uint64(0) - words if keys.rank else words)[:, : own.shape[1]]


def _blocks(xp: Any, keys: PointKeys, seeds: Array, tokens: Array, counter: int) -> Array:
    """The blocks of seeds (4, N, nodes): (16, N, nodes)."""
    _, n, nodes = seeds.shape
    nonce = xp.empty((3, n, nodes), dtype=np.uint32)
    nonce[0], nonce[1], nonce[2] = np.uint32(keys.salt[0]), np.uint32(keys.salt[1]), tokens[:, None]
    return blocks(xp, seeds.reshape(4, -1), counter, nonce.reshape(3, -1)).reshape(16, n, nodes)
