"""What kernels do in one pass where they can: here each as its plain steps, which is what it must agree with.

A backend with fused kernels overrides these names; results are the same, bit for bit.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any


@dataclass(frozen=True)
class Sealed:
    """Masked words, and their low bits as the payload that opens them."""

    words: Array
    payload: Array

    @property
    def size(self) -> int:
        return int(self.words.size)


class Compositions:
    """Names made of other kernels' names. `key` is a stream's 256-bit key, `block` the 64-byte block it starts at."""

    xp: Any
    ahead = 1 << 27  # bytes of material, or one message, that may wait for a party: how far the dealer may run ahead
    fuses = False  # whether a mask is better expanded into the sum that it masks than ahead of it
    chunk = 8192  # elements of material that are best made, sent and used at once: here what stays in a core's cache

    @abstractmethod
    def keystream(self, key: bytes, block: int, nbytes: int) -> Array: ...
    @abstractmethod
    def pack(self, words: Array, bits: int) -> Array: ...
    @abstractmethod
    def unpack(self, payload: Array, count: int, bits: int) -> Array: ...
    @abstractmethod
    def look_up(self, tables: Array, v: Array) -> tuple[Array, Array]: ...

    def uniform(self, key: bytes, block: int, count: int, bits: int) -> Array:
        """`count` uniform words below 2^bits as uint64, drawn from 1, 2, 4 or 8 bytes each (see `drawn`)."""
        words = self.drawn_words(key, block, count, bits).astype(np.uint64, copy=False)
        if bits < 8 * drawn(bits):
            words &= np.uint64((1 << bits) - 1)
        return words

    def drawn_words(self, key: bytes, block: int, count: int, bits: int) -> Array:
        """The keystream as words of 1, 2, 4 or 8 bytes, of which the low `bits` bits count."""
        size = drawn(bits)
        return self.keystream(key, block, count * size).view(f"u{size}")

    def masked(self, key: bytes, block: int, words: Array, bits: int, constant: int = 0) -> Array:
        """Flat words + constant + uniform words below 2^bits: a mask expanded into what it masks."""
        total = words.reshape(-1) + self.uniform(key, block, words.size, bits)
        return total + np.uint64(constant) if constant else total

    def sealed(self, key: bytes, block: int, words: Array, bits: int, constant: int = 0) -> Sealed:
        """`masked`, with its low `bits` bits packed."""
        total = self.masked(key, block, words, bits, constant)
        return Sealed(total, self.pack(total, bits))

    def combined(self, keys: tuple[bytes, bytes], count: int, bits: int, xor: bool = False) -> Array:
        """What the first words of two streams add up to mod 2^bits, or xor to: a mask as the dealer knows it."""
        a, b = (self.uniform(key, 0, count, bits) for key in keys)
        total = a ^ b if xor else a + b
        return total & np.uint64((1 << bits) - 1) if bits < 64 and not xor else total

    def correction(self, key: bytes, value: Array, bits: int, xor: bool = False) -> Array:
        """The payload that turns party 1's share into value minus (xor: bytes) the stream's first words."""
        if xor:
            return value ^ self.keystream(key, 0, value.size)
        return self.pack(value - self.uniform(key, 0, value.size, bits), bits)

    def opened(self, mine: Array, payload: Array, bits: int, xor: bool = False) -> Array:
        """mine + theirs (or xor) mod 2^bits, flat, with theirs as it came from the peer."""
        mine, theirs = mine.reshape(-1), self.unpack(payload, mine.size, bits)
        total = mine ^ theirs if xor else mine + theirs
        return total if bits == 64 else total & np.uint64((1 << bits) - 1)

    def outcome(self, tables: Array, v: Array, down: int, bits: int, place: int, last: bool, share: Array) -> None:
        """Looks one block of v up, the `bits` bits from bit `down` on, and xors this party's shares of [block < r's]
        into bit `place` of `share`, in place, and those of [block = r's] into the next, but for the last block.

        tables (n, bytes) uint8; v, share (n,) uint64, share contiguous.
        """
        block = (v >> np.uint64(down)) & np.uint64((1 << bits) - 1)
        equal, less = self.look_up(tables, block)
        share ^= less.astype(np.uint64) << np.uint64(place)
        if not last:
            share ^= equal.astype(np.uint64) << np.uint64(place + 1)

    def outcome_tables(self, r: Array, alpha: Array, window: int, blocks: int, columns: int, wide: bool) -> Array:
        """The values of a comparison's last tables, (n * 2^(2 blocks - 1) * columns,) words: see `Comparison`."""
        below = outcomes(blocks)
        e = np.arange(below.size, dtype=np.uint64)
        lower = self.xp.asarray(below)[(alpha[:, None] ^ self.xp.asarray(e)).astype(np.int64)]
        part = r[:, None]
        flipped = (part >> np.uint64(window - 1)) ^ lower
        table = [flipped]
        if columns >= 2:
            table.append((np.uint64(1) - flipped) * (part - (lower << np.uint64(window) if wide else np.uint64(0))))
        if columns == 3:
            table.append(flipped * part)
        return self.xp.stack(table, axis=-1).reshape(-1)


def outcomes(blocks: int) -> np.ndarray:
    """[value < r's] for every pattern of a comparison's outcome bits, (2^(2 blocks - 1),) words: see `Comparison`."""
    e = np.arange(1 << (2 * blocks - 1), dtype=np.uint64)
    below, tied = np.zeros_like(e), np.ones_like(e)
    for b in range(blocks):
        below |= tied & (e >> np.uint64(2 * b)) & np.uint64(1)
        tied &= e >> np.uint64(2 * b + 1)
    return below


def whole_bytes(bits: int) -> int:
    return -(-bits // 8)


def drawn(bits: int) -> int:
    """Bytes that a uniform word of so many bits is drawn from."""
    return next(size for size in (1, 2, 4, 8) if bits <= 8 * size)
