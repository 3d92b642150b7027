"""ChaCha20 (RFC 8439, zero nonce), compiled, and fused into what consumes it; no interpreter lock is held.

A vector has one word of the state of each of LANES consecutive blocks, so that the rounds are vector operations; a
transposition brings the blocks' own words together. Consumers draw GROUP words at a time into memory that stays in the
first cache. Streams have planes as payloads do, each from a fresh block (see `Kernels.planes`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from secformer.mpc.kernels.cpu.packing import Planes, cut, join, numbers, planes, writable, write, written
from secformer.mpc.kernels.cpu.processor import WIDE

Array = Any
LANES = 16 if WIDE else 8
BATCH = 16 * LANES  # words of 32 bits that one step makes
GROUP = 1024        # words that a consumer draws at a time: whole batches of blocks of every plane but the last
CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


@intrinsic  # type: ignore[untyped-decorator]
def _blocks(typing: Any, key: Any, counter: Any, out: Any, at: Any) -> Any:
    """Writes blocks counter, ..., counter + LANES - 1 under a key of eight words to out[at:]."""
    signature = types.void(key, types.uint32, out, types.intp)

    def emit(context: Any, builder: Any, kind: Any, args: Any) -> None:
        key, out = (context.make_array(kind.args[i])(context, builder, args[i]).data for i in (0, 2))
        Blocks(builder).emit(key, args[1], builder.gep(out, [args[3]]))

    return signature, emit


class Blocks:
    """Writes the cipher as LLVM: one loop over ten double rounds."""

    def __init__(self, builder: ir.IRBuilder):
        self.builder = builder
        self.word = ir.IntType(32)
        self.vector = ir.VectorType(self.word, LANES)

    def emit(self, key: Any, counter: Any, out: Any) -> None:
        """Consecutive blocks under one key."""
        build = self.builder
        start = [self.constant([c] * LANES) for c in CONSTANTS]
        start += [self.filled(build.load(build.gep(key, [self.word(i)]))) for i in range(8)]
        start += [build.add(self.filled(counter), self.constant(range(LANES))), *[self.constant([0] * LANES)] * 3]
        self.store_blocks(self.permuted(start), out)

    def permuted(self, start: list[Any]) -> list[Any]:
        """The blocks of states of 16 vectors, word by word."""
        build = self.builder
        entry, loop, end = build.block, build.append_basic_block("rounds"), build.append_basic_block("done")
        build.branch(loop)

        build.position_at_end(loop)
        count = build.phi(self.word)
        count.add_incoming(self.word(0), entry)
        state = [build.phi(self.vector) for _ in start]
        x = list(state)
        for quarter in COLUMNS + DIAGONALS:
            self.quarter_round(x, *quarter)
        following = build.add(count, self.word(1))
        count.add_incoming(following, loop)
        for phi, first, then in zip(state, start, x, strict=True):
            phi.add_incoming(first, entry)
            phi.add_incoming(then, loop)
        build.cbranch(build.icmp_unsigned("<", following, self.word(10)), loop, end)

        build.position_at_end(end)
        return [build.add(a, b) for a, b in zip(x, start, strict=True)]

    def store_blocks(self, x: list[Any], out: Any) -> None:
        """Writes 16 vectors as LANES blocks of 16 words."""
        for first in range(0, 16, LANES):
            for lane, row in enumerate(self.transposed(x[first : first + LANES])):
                self.store(row, self.builder.gep(out, [self.word(16 * lane + first)]))

    def store(self, row: Any, to: Any) -> None:
        self.builder.store(row, self.builder.bitcast(to, self.vector.as_pointer()), align=4)

    def load(self, at: Any) -> Any:
        return self.builder.load(self.builder.bitcast(at, self.vector.as_pointer()), align=4)

    def quarter_round(self, x: list[Any], a: int, b: int, c: int, d: int) -> None:
        build = self.builder
        for into, other, turned, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[into] = build.add(x[into], x[other])
            mixed = build.xor(x[turned], x[into])
            up, down = (self.constant([n] * LANES) for n in (by, 32 - by))
            x[turned] = build.or_(build.shl(mixed, up), build.lshr(mixed, down))

    def transposed(self, rows: list[Any]) -> list[Any]:
        """Rows and lanes exchanged, a bit of their numbers at a time."""
        for bit in (1 << i for i in range(LANES.bit_length() - 1)):
            stay = self.constant(i if not i & bit else LANES + (i ^ bit) for i in range(LANES))
            move = self.constant(i ^ bit if not i & bit else LANES + i for i in range(LANES))
            for i in range(LANES):
                if not i & bit:
                    a, b = rows[i], rows[i | bit]
                    rows[i] = self.builder.shuffle_vector(a, b, stay)
                    rows[i | bit] = self.builder.shuffle_vector(a, b, move)
        return rows

    def constant(self, words: Any) -> Any:
        return ir.Constant(self.vector, [self.word(w) for w in words])

    def filled(self, word: Any) -> Any:
        """A word in all lanes."""
        none = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(none, word, self.word(0))
        return self.builder.shuffle_vector(first, none, self.constant([0] * LANES))


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _fill(key: Array, block: int, out: Array, words: int) -> None:
    """out[:words] = the stream from a block on, and maybe more: out holds whole batches."""
    for at in range(0, words, BATCH):
        _blocks(key, np.uint32(block + at // 16), out, at)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def keystream(key: Array, block: int, out: Array) -> None:
    """out (n,) uint32."""
    whole = out.size - out.size % BATCH
    _fill(key, block, out, whole)
    if whole < out.size:
        rest = np.empty(BATCH, np.uint32)
        _fill(key, block + whole // 16, rest, BATCH)
        out[whole:] = rest[: out.size - whole]


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def _draw(key: Array, block: int, count: int, nbytes: int, start: int, pool: Planes, out: Array) -> None:
    """out = words start, ... of a stream of `count` words of `nbytes` bytes that begins at a block; start is a multiple
    of GROUP. pool: room for GROUP words of each plane, in words of 32 bits."""
    n = out.size
    if nbytes == 8:
        both = pool[0]
        _fill(key, block + start // 8, both, 2 * n)
        whole = both.view(np.uint64)
        for i in range(n):
            out[i] = whole[i]
        return
    four, two, one = pool
    if nbytes & 4:
        _fill(key, block + start // 16, four, n)
        block += (count + 15) // 16
    if nbytes & 2:
        _fill(key, block + start // 32, two, (n + 1) // 2)
        block += (count + 31) // 32
    if nbytes & 1:
        _fill(key, block + start // 64, one, (n + 3) // 4)
    join((four[: n if nbytes & 4 else 0], two.view(np.uint16)[: n if nbytes & 2 else 0],
          one.view(np.uint8)[: n if nbytes & 1 else 0]), 0, out)


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _pool() -> Planes:
    return (np.empty(2 * GROUP, np.uint32), np.empty(max(GROUP // 2, BATCH), np.uint32),
            np.empty(max(GROUP // 4, BATCH), np.uint32))


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def uniform(key: Array, block: int, nbytes: int, mask: int, out: Array) -> None:
    pool = _pool()
    for start in range(0, out.size, GROUP):
        part = out[start : start + GROUP]
        _draw(key, block, out.size, nbytes, start, pool, part)
        for i in range(part.size):
            part[i] &= mask


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def combined(a: Array, b: Array, nbytes: int, each: int, mask: int, out: Array) -> None:
    """out = the sum of two streams' words, of each the bits in `each`, & mask."""
    pool, drawn = _pool(), np.empty(GROUP, np.uint64)
    for start in range(0, out.size, GROUP):
        total = out[start : start + GROUP]
        found = drawn[: total.size]
        _draw(a, 0, out.size, nbytes, start, pool, total)
        _draw(b, 0, out.size, nbytes, start, pool, found)
        for i in range(total.size):
            total[i] = ((total[i] & each) + (found[i] & each)) & mask


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def correction(key: Array, nbytes: int, value: Array, mask: int, out: Array) -> None:
    """out = the payload of value - the stream's words."""
    pool, drawn, to = _pool(), np.empty(GROUP, np.uint64), planes(out, value.size, nbytes)
    for start in range(0, value.size, GROUP):
        part = value[start : start + GROUP]
        left = drawn[: part.size]
        _draw(key, 0, value.size, nbytes, start, pool, left)
        for i in range(part.size):
            left[i] = part[i] - left[i]
        cut(left, mask, start, to)


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def correction_xor(key: Array, value: Array, out: Array) -> None:
    """out = bytes xor the stream's."""
    pool = np.empty(max(GROUP, BATCH), np.uint32)
    drawn = pool.view(np.uint8)
    for start in range(0, value.size, drawn.size):
        part, total = value[start : start + drawn.size], out[start : start + drawn.size]
        _fill(key, start // 64, pool, (part.size + 3) // 4)
        for i in range(part.size):
            total[i] = part[i] ^ drawn[i]


# ---- several streams in one call (see `bundles.Table`) ---------------------------------------------------------------


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def shares(keys: Array, facts: Array, out: Array) -> None:
    """out = the first words, or bytes, of each stream."""
    pool = _pool()
    for i in range(facts.shape[0]):
        (count, nbytes, at, _), mask, raw = numbers(facts, i), facts[i, 2], facts[i, 3] == 1
        if raw:  # bytes: those of whole words
            count, nbytes = (count + 7) // 8, 8
        for start in range(0, count, GROUP):
            part = out[at + start : at + min(count, start + GROUP)]
            _draw(keys[i], 0, count, nbytes, start, pool, part)
            if not raw:
                for j in range(part.size):
                    part[j] &= mask


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def combined_all(keys: Array, facts: Array, out: Array) -> None:
    """out = for each mask the sum of two streams' words, or their xor. Keys stand in pairs."""
    pool, drawn = _pool(), np.empty(GROUP, np.uint64)
    for i in range(facts.shape[0]):
        count, nbytes, at, _ = numbers(facts, i)
        each, mask, xor = facts[i, 2], facts[i, 5], facts[i, 3] == 1
        for start in range(0, count, GROUP):
            total = out[at + start : at + min(count, start + GROUP)]
            found = drawn[: total.size]
            _draw(keys[2 * i], 0, count, nbytes, start, pool, total)
            _draw(keys[2 * i + 1], 0, count, nbytes, start, pool, found)
            for j in range(total.size):
                a, b = total[j] & each, found[j] & each
                total[j] = a ^ b if xor else (a + b) & mask


@njit(nogil=True, cache=True, boundscheck=False)  # type: ignore[untyped-decorator]
def corrections(keys: Array, values: Array, facts: Array, out: Array) -> None:
    """out = the payload of values - the streams' words; of bytes xor theirs."""
    pool, drawn = _pool(), np.empty(GROUP, np.uint64)
    for i in range(facts.shape[0]):
        (count, nbytes, at, first), mask, raw = numbers(facts, i), facts[i, 2], facts[i, 3] == 1
        to = out[first : first + count * nbytes]
        if raw:
            count, nbytes = (count + 7) // 8, 8
        room = writable(to)
        for start in range(0, count, GROUP):
            part = values[at + start : at + min(count, start + GROUP)]
            left = drawn[: part.size]
            _draw(keys[i], 0, count, nbytes, start, pool, left)
            for j in range(part.size):
                left[j] = part[j] ^ left[j] if raw else part[j] - left[j]
            if raw:
                end = min(to.size, 8 * (start + part.size))
                to[8 * start : end] = left.view(np.uint8)[: end - 8 * start]
            else:
                write(left, mask, start, count, nbytes, room)
        if not raw:
            written(room, to)
