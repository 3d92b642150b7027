"""Several arrays at once: all fields of a message from the dealer, all items of an opening.

A GPU does each of these in one launch (`cuda/bundles`); here are the plain steps, array by array.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from secformer.mpc.backend import Backend
from secformer.mpc.kernels.standing import Standing
from secformer.mpc.kernels.words import Array, Dropped, Factor, Key, Mask, Masked, Piece, Sealing, whole_bytes
from secformer.mpc.ring import mask, word_type

Item = tuple[Array | Masked | Sealing, int]  # what is opened, and in how many bits


class Bundles(ABC):
    """What kernels do with several arrays. The pieces of a message from the dealer have streams of their own, which are
    read from their start."""

    backend: Backend

    @abstractmethod
    def keystream(self, key: Key, block: int, nbytes: int) -> Array: ...
    @abstractmethod
    def uniform(self, key: Key, block: int, count: int, bits: int) -> Array: ...
    @abstractmethod
    def correction(self, key: Key, value: Array, bits: int, xor: bool = False) -> Array: ...
    @abstractmethod
    def matmul(self, a: Array, b: Array, bits: int = 64) -> Array: ...
    @abstractmethod
    def breaches(self, tables: Array, u: Array, shifts: Sequence[int], weights: Array, rows: int) -> Array: ...
    @abstractmethod
    def pack(self, words: Array, bits: int) -> Array: ...
    @abstractmethod
    def opened(self, mine: Array, payload: Array, bits: int, xor: bool = False) -> Array: ...
    @abstractmethod
    def dropped(self, words: Array, bits: int, up: bool) -> Array: ...
    @abstractmethod
    def lifted(self, u: Array, m: Masked | Sealing, wraps: Array | None, window: int, first: bool) -> Array: ...
    @abstractmethod
    def unpack(self, payload: Array, count: int, bits: int) -> Array: ...

    def combined(self, keys: Sequence[tuple[Key, Key]], masks: Sequence[Mask]) -> list[Array]:
        """What the first words of both parties' streams make of each mask: flat words."""
        found = []
        for each, (length, bits, xor, carries) in zip(keys, masks, strict=True):
            a, b = (self.uniform(key, 0, length, bits) for key in each)
            total = a ^ b if xor else a + b
            found.append(total & mask(bits) if bits < 64 and not (xor or carries) else total)
        return found

    def shares(self, keys: Sequence[Key], pieces: Sequence[Piece]) -> list[Array]:
        """Each stream's first words below 2^bits, (length,) uint64, or its first bytes, (length,) uint8."""
        return [self.keystream(key, 0, piece.length) if piece.raw else self.uniform(key, 0, piece.length, piece.bits)
                for key, piece in zip(keys, pieces, strict=True)]

    def corrections(self, keys: Sequence[Key], values: Sequence[Array], pieces: Sequence[Piece]) -> Array:
        """The payload that turns what `shares` gives party 1's peer into shares of the values: the pieces'
        corrections, one behind the other."""
        each = [self.correction(key, value, piece.bits, piece.raw)
                for key, value, piece in zip(keys, values, pieces, strict=True)]
        return each[0] if len(each) == 1 else self.backend.joined(each)

    def unpacked(self, payload: Array, pieces: Sequence[Piece]) -> list[Array]:
        """The arrays behind `corrections`, as `shares` has them."""
        found, start = [], 0
        for piece in pieces:
            part = payload[start : start + piece.nbytes]
            if not piece.raw:
                found.append(self.unpack(part, piece.length, piece.bits))
            else:
                found.append(part.copy() if start % 8 else part)  # rows of bytes are read as words
            start += piece.nbytes
        return found

    def joint(self, lefts: Sequence[Array], rights: Sequence[Array] | Standing, onto: Array, bits: int) -> Array:
        """onto + the sum of the products of two pairs, right mod 2^bits, as whole words: lefts (..., n, k), rights
        (..., k, m), `onto` as many words as the result has, which may be overwritten."""
        rights = rights.words() if isinstance(rights, Standing) else rights
        (a, c), (b, d) = ([v.astype(word_type(bits), copy=False) for v in given] for given in (lefts, rights))
        total = self.matmul(a, b, bits) + self.matmul(c, d, bits)
        return total.astype(np.uint64, copy=False) + onto.reshape(total.shape)

    def weigh(self, key: Key, block: int, tables: Array, u: Array, shifts: Sequence[int], out: Array) -> None:
        """Xors what `breaches` says of u (n,) into out (rows,), with the words of a stream from `block` on as weights:
        tables as `breaches` takes them."""
        weights = self.uniform(key, block, u.size * len(shifts), 64)
        out ^= self.breaches(tables, u, shifts, weights, out.size)

    def seal(self, items: Sequence[Item]) -> Array:
        """The payload that opens the items: the low bits of each, packed, one behind the other."""
        packed = [self.pack(_words(item), bits) for item, bits in items]
        return packed[0] if len(packed) == 1 else self.backend.joined(packed)

    def unseal(self, items: Sequence[Item], mine: Array, theirs: Array, xor: bool = False) -> list[Array]:
        """What `opened` says of each item: mine + theirs, or xor, from both parties' payloads."""
        found, start = [], 0
        for item, bits in items:
            stop = start + item.size * whole_bytes(bits)
            found.append(self.opened(_words(item), theirs[start:stop], bits, xor))
            start = stop
        return found

    def added(self, a: Array, up: int, b: Array, more: int, minus: bool) -> Array:
        """a 2^up plus, or `minus`, b 2^more, broadcasting."""
        a, b = a << np.uint64(up) if up else a, b << np.uint64(more) if more else b
        return a - b if minus else a + b

    def plain(self, words: Array | Dropped) -> Array:
        """Flat words, without what they are to lose."""
        if isinstance(words, Dropped):
            return self.dropped(words.words.reshape(-1), words.bits, words.up)
        return words.reshape(-1)

    def factor(self, u: Array, m: Masked | Sealing, wraps: Array | None, window: int, first: bool,
               shape: tuple[int, ...]) -> Factor:
        """An operand of `multiplied`, opened as u (n,) under m: lifted, where it has a window."""
        return Factor(u.reshape(shape), self.lifted(u, m, wraps, window, first).reshape(shape), window)

    def share(self, factor: Factor, first: bool) -> Array:
        """This party's share of a factor."""
        return factor.share


def _words(item: Array | Masked | Sealing) -> Array:
    if isinstance(item, Sealing):
        raise TypeError("these kernels do not fuse: mask words with Material.masked, which knows them")
    return item.words if isinstance(item, Masked) else item
