"""Keys of point functions expanded to rows, compiled (see `mpc/kernels/points`); no interpreter lock is held.

A vector has one word of the state of each of LANES nodes, whose seeds are kept word by word: (4, nodes).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from secformer.mpc.kernels.blocks import CONSTANTS
from secformer.mpc.kernels.cpu.chacha import BATCH, LANES, Array, Blocks
from secformer.mpc.kernels.points import BLOCK, LEAF, LEAF_COUNTER


@intrinsic  # type: ignore[untyped-decorator]
def _many(typing: Any, seeds: Any, at: Any, counter: Any, nonce: Any, out: Any, whole: Any) -> Any:
    """Writes the blocks of nodes at, ..., at + LANES - 1 to out[:BATCH]: block by block where `whole`, a literal, else
    word by word. seeds (4, nodes) uint32."""
    if not isinstance(whole, types.BooleanLiteral):
        return None
    signature = types.void(seeds, types.intp, types.uint32, nonce, out, whole)

    def emit(context: Any, builder: Any, kind: Any, args: Any) -> None:
        arrays = {i: context.make_array(kind.args[i])(context, builder, args[i]) for i in (0, 3, 4)}
        step = builder.extract_value(arrays[0].shape, 1)
        nonces = [builder.gep(arrays[3].data, [ir.IntType(64)(i)]) for i in range(3)]
        made = _Nodes(builder).made(arrays[0].data, step, args[1], args[2], [builder.load(n) for n in nonces])
        cipher = Blocks(builder)
        if kind.args[5].literal_value:
            cipher.store_blocks(made, arrays[4].data)
            return
        for i, row in enumerate(made):
            cipher.store(row, builder.gep(arrays[4].data, [ir.IntType(64)(LANES * i)]))

    return signature, emit


class _Nodes(Blocks):
    """Writes the blocks of many keys of 128 bits as LLVM."""

    def made(self, seeds: Any, step: Any, at: Any, counter: Any, nonce: list[Any]) -> list[Any]:
        build = self.builder
        key = [self.load(build.gep(seeds, [build.add(at, build.mul(step, ir.IntType(64)(i)))])) for i in range(4)]
        start = [self.constant([c] * LANES) for c in CONSTANTS]
        return self.permuted([*start, *key, *key, self.filled(counter), *map(self.filled, nonce)])


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def rows(first: int, rank: int, salt: Array, roots: Array, corrections: Array, turns: Array, finals: Array,
         out: Array) -> None:
    """out (n, V) = the rows of tokens first, ..., first + n - 1, whose numbers are part of their nonces."""
    levels, columns = turns.shape[1], out.shape[1]
    room, count = (1 << levels) + LANES, (columns + LEAF - 1) // LEAF
    seeds, after = np.empty((4, room), np.uint32), np.empty((4, room), np.uint32)
    bits, later = np.empty(room, np.uint32), np.empty(room, np.uint32)
    drawn, nonce = np.empty(BATCH, np.uint32), np.empty(3, np.uint32)
    words, sign = drawn.view(np.uint64), np.uint64(0) - np.uint64(rank)  # sign: all ones where words are negated
    nonce[0], nonce[1] = salt[0], salt[1]
    for token in range(first, first + out.shape[0]):
        nonce[2], row = np.uint32(token), out[token - first]
        seeds[:, 0], bits[0] = roots[token], np.uint32(rank)
        for level in range(levels):
            nodes, turn = 1 << level, np.uint32(turns[token, level])
            fix = corrections[token, level]
            for i in range(0, nodes, LANES):
                _many(seeds, i, np.uint32(level), nonce, drawn, False)
                here = min(LANES, nodes - i)
                for w in range(4):
                    own = fix[w]
                    for j in range(here):
                        change = (np.uint32(0) - bits[i + j]) & own
                        after[w, i + j] = drawn[LANES * w + j] ^ change
                        after[w, nodes + i + j] = drawn[LANES * (4 + w) + j] ^ change
                for j in range(here):
                    on = np.uint32(0) - bits[i + j]
                    later[i + j] = (drawn[LANES * 8 + j] ^ (on & turn)) & np.uint32(1)
                    later[nodes + i + j] = (drawn[LANES * 9 + j] ^ (on & (turn >> np.uint32(1)))) & np.uint32(1)
            seeds, after, bits, later = after, seeds, later, bits
        for i in range(0, count, LANES):
            for block in range(LEAF // BLOCK):
                _many(seeds, i, np.uint32(LEAF_COUNTER + block), nonce, drawn, True)
                for j in range(min(LANES, count - i)):
                    to, on = LEAF * (i + j) + BLOCK * block, np.uint64(0) - np.uint64(bits[i + j])
                    for w in range(min(BLOCK, columns - to)):
                        word = words[BLOCK * j + w] + (on & finals[token, BLOCK * block + w])
                        row[to + w] = (word ^ sign) - sign
