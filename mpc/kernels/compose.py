"""What kernels do in one pass where they can: here each as its plain steps, which is what it must agree with.

A backend with fused kernels overrides these names; results are the same, bit for bit.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from secformer.mpc.ring import mask

Array = Any
BLOCK_BYTES = 64  # of a keystream
STEP_BITS = 4     # e^x is a public power, of an exponent below 2^this, times an entry of a table
PLANES = ((4, np.uint32), (2, np.uint16), (1, np.uint8))  # what words of fewer than eight bytes are cut into


@dataclass(frozen=True)
class Sealed:
    """Masked words, and their low bits as the payload that opens them."""

    words: Array
    payload: Array

    @property
    def size(self) -> int:
        return int(self.words.size)


def unsealed(words: Array | Sealed) -> Array:
    """Masked words, whether they are sealed or not."""
    return words.words if isinstance(words, Sealed) else words


class Compositions:
    """Names made of other kernels' names. `key` is a stream's 256-bit key, `block` the 64-byte block it starts at."""

    xp: Any
    ahead = 1 << 29  # bytes of material, or one message, that may wait for a party: how far the dealer may run ahead
    fuses = False  # whether a mask is better expanded into the sum that it masks than ahead of it
    chunk = 8192  # elements of material that are best made, sent and used at once: here what stays in a core's cache

    @abstractmethod
    def keystream(self, key: bytes, block: int, nbytes: int) -> Array: ...
    @abstractmethod
    def pack(self, words: Array, bits: int) -> Array: ...
    @abstractmethod
    def unpack(self, payload: Array, count: int, bits: int) -> Array: ...
    @abstractmethod
    def _view(self, payload: Array, dtype: Any) -> Array: ...
    @abstractmethod
    def gather(self, tables: Array, e: Array) -> Array: ...
    @abstractmethod
    def look_up(self, tables: Array, v: Array) -> tuple[Array, Array]: ...

    def uniform(self, key: bytes, block: int, count: int, bits: int) -> Array:
        """`count` uniform words below 2^bits as uint64, of as many bytes as hold them (see `drawn`)."""
        stream = self.keystream(key, block, BLOCK_BYTES * drawn(count, bits))
        if whole_bytes(bits) == 8:
            words = stream.view(np.uint64)[:count]
        else:
            words = self.joined(self.planes(stream, count, bits, BLOCK_BYTES), count)
        return words & mask(bits) if bits % 8 else words

    def planes(self, data: Array, count: int, bits: int, unit: int = 1) -> list[Array]:
        """The planes of `count` words of fewer than eight bytes in a payload or a keystream, in which each starts at a
        multiple of `unit` bytes: of four, two and one byte a word, empty where the words have none."""
        found, start = [], 0
        for width, dtype in PLANES:
            end = start + (count * width if whole_bytes(bits) & width else 0)
            found.append(self._view(data[start:end], dtype))
            start = -(-end // unit) * unit
        return found

    def joined(self, planes: list[Array], count: int) -> Array:
        """The words that planes were cut from: (count,) uint64."""
        words, shift = self.xp.zeros(count, dtype=np.uint64), 0
        for plane in planes:
            if plane.size:
                words |= plane.astype(np.uint64) << np.uint64(shift)
                shift += 8 * plane.itemsize
        return words

    def masked(self, key: bytes, block: int, words: Array, bits: int, constant: int = 0) -> Array:
        """Flat words + constant + uniform words below 2^bits: a mask expanded into what it masks."""
        total = words.reshape(-1) + self.uniform(key, block, words.size, bits)
        return total + np.uint64(constant) if constant else total

    def sealed(self, key: bytes, block: int, words: Array, bits: int, constant: int = 0) -> Sealed:
        """`masked`, with its low `bits` bits packed."""
        total = self.masked(key, block, words, bits, constant)
        return Sealed(total, self.pack(total, bits))

    def combined(
        self, keys: tuple[bytes, bytes], count: int, bits: int, xor: bool = False, carries: bool = False
    ) -> Array:
        """What the first words of two streams add up to mod 2^bits (with `carries`, mod 2^64), or xor to: a mask as the
        dealer knows it."""
        a, b = (self.uniform(key, 0, count, bits) for key in keys)
        total = a ^ b if xor else a + b
        return total & mask(bits) if bits < 64 and not (xor or carries) else total

    def correction(self, key: bytes, value: Array, bits: int, xor: bool = False) -> Array:
        """The payload that turns party 1's share into value minus (xor: bytes) the stream's first words."""
        if xor:
            return value ^ self.keystream(key, 0, value.size)
        return self.pack(value - self.uniform(key, 0, value.size, bits), bits)

    def opened(self, mine: Array, payload: Array, bits: int, xor: bool = False) -> Array:
        """mine + theirs (or xor) mod 2^bits, flat, with theirs as it came from the peer."""
        mine, theirs = mine.reshape(-1), self.unpack(payload, mine.size, bits)
        total = mine ^ theirs if xor else mine + theirs
        return total if bits == 64 else total & mask(bits)

    def wraps(self, r: Array, window: int) -> Array:
        """The values of `Lift`, (2 n,) words, of mask words' sums r (n,)."""
        carry = r >> np.uint64(window)
        return self.xp.concatenate([carry + ((r >> np.uint64(window - 1)) & np.uint64(1)), carry])

    def lifted(self, u: Array, z: Array, masked: Array, wraps: Array | None, window: int, first: bool) -> Array:
        """One party's share of z's value from the opened u: z (n,) its share, `masked` what it masked (see `lift`),
        wraps (2 n,) its share of those of `Lift`, None where nothing wraps: (n,) words."""
        share = z - masked
        if first:
            share += u
        if wraps is None:
            return share
        low, high = wraps.reshape(2, -1)
        return share + (self.xp.where((u >> np.uint64(window - 1)) == 1, high, low) << np.uint64(window))

    def outcome(self, tables: Array, v: Array, down: int, bits: int, place: int, last: bool, share: Array) -> None:
        """Looks one block of v up, the `bits` bits from bit `down` on, and xors this party's shares of [block < r's]
        into bit `place` of `share`, in place, and those of [block = r's] into the next, but for the last block.

        tables (n, bytes) uint8; v, share (n,) uint64, share contiguous.
        """
        block = (v >> np.uint64(down)) & mask(bits)
        equal, less = self.look_up(tables, block)
        share ^= less.astype(np.uint64) << np.uint64(place)
        if not last:
            share ^= equal.astype(np.uint64) << np.uint64(place + 1)

    def rectified(self, tables: Array, e: Array, u: Array, r: Array, window: int, first: bool) -> Array:
        """One party's shares of max(x, 0) for x = u - r: tables (n, entries, columns) its shares of `Relu`, e (n,) the
        opened outcomes, u, r (n,), r its share of the mask -> (n,).

        Where msb(u) = 0, b = 1 - c and b (r - w 2^k) is the second column; where it is 1, b = c, nothing wraps, and b r
        is the third column, or mod 2^k r without the second.
        """
        c, low, *high = self.gather(tables, e)
        upper = c * u - (high[0] if high else r - low)
        lower = (np.uint64(1 if first else 0) - c) * u - low
        return self.xp.where((u >> np.uint64(window - 1)) == 1, upper, lower)

    def pick(self, tables: Array, e: Array, place: int, share: Array) -> None:
        """Xors bit e[i] of row i into bit `place` of share[i], in place: tables (n, bytes) uint8, e, share (n,)."""
        bit, _ = self.look_up(tables, e)
        share ^= bit.astype(np.uint64) << np.uint64(place)

    def outcome_rows(self, r: Array, alpha: Array, window: int, blocks: int) -> Array:
        """The values of the last tables of `Less`, (n * bytes,) uint8."""
        bits = 2 * blocks - 1
        own = (alpha & mask(bits)).astype(np.int64)
        rows = self.xp.asarray(outcome_patterns(blocks))[own]
        flipped = (r >> np.uint64(window - 1)) ^ (alpha >> np.uint64(bits))
        return (rows ^ (flipped * np.uint64(255)).astype(np.uint8)[:, None]).reshape(-1)

    def outcome_tables(self, r: Array, alpha: Array, window: int, blocks: int, columns: int) -> Array:
        """The values of the table of `Relu`, (n * 2^(2 blocks - 1) * columns,) words; with three columns modulo more
        than 2^window."""
        below = outcomes(blocks)
        e = np.arange(below.size, dtype=np.uint64)
        lower = self.xp.asarray(below)[(alpha[:, None] ^ self.xp.asarray(e)).astype(np.int64)]
        part = r[:, None]
        flipped = (part >> np.uint64(window - 1)) ^ lower
        wrap = lower << np.uint64(window) if columns == 3 else np.uint64(0)
        table = [flipped, (np.uint64(1) - flipped) * (part - wrap), flipped * part]
        return self.xp.stack(table[:columns], axis=-1).reshape(-1)


def outcomes(blocks: int) -> np.ndarray:
    """[value < r's], L of `Comparison`, for every pattern of outcome bits: (2^(2 blocks - 1),) words."""
    e = np.arange(1 << (2 * blocks - 1), dtype=np.uint64)
    below, tied = np.zeros_like(e), np.ones_like(e)
    for b in range(blocks):
        below |= tied & (e >> np.uint64(2 * b)) & np.uint64(1)
        tied &= e >> np.uint64(2 * b + 1)
    return below


def power_factors(period_bits: int, frac: int) -> np.ndarray:
    """What makes the entry m places above r's own of e^(s - rho), rho = r mod s and s = 2^STEP_BITS: (entries,).

    The entry is e^(m s - rho) modulo the period; entries from 1 on lie a period lower, but for values of entry 1 that
    are in the domain, which takes 2^frac.
    """
    entries, step = 1 << (period_bits - STEP_BITS), 1 << STEP_BITS
    turns = [-1, *(m - entries - 1 for m in range(1, entries))]
    return np.array([math.ldexp(math.exp(step * turn), frac) for turn in turns])


@lru_cache(maxsize=8)
def outcome_patterns(blocks: int) -> np.ndarray:
    """For every alpha, without beta, the row of [value < r's] by opened outcome bits: (2^(2 blocks - 1), bytes)."""
    below = outcomes(blocks).astype(np.uint8)
    e = np.arange(below.size)
    return np.packbits(below[e[:, None] ^ e[None, :]], axis=1, bitorder="little")


def whole_bytes(bits: int) -> int:
    return -(-bits // 8)


def drawn(count: int, bits: int) -> int:
    """Blocks of a stream that `count` uniform words of so many bits are drawn from: words of eight bytes, or planes as
    a payload has them, each of which starts at a block."""
    widths = [8] if whole_bytes(bits) == 8 else [width for width, _ in PLANES if whole_bytes(bits) & width]
    return sum(-(-count * width // BLOCK_BYTES) for width in widths)
