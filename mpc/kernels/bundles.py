"""Several arrays at once: all fields of a message from the dealer, all items of an opening.

A GPU does each of these in one launch (`cuda/bundles`); here are the plain steps, array by array.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from secformer.mpc.kernels.words import Array, Masked, Piece, Sealing, whole_bytes

Item = tuple[Array | Masked | Sealing, int]  # what is opened, and in how many bits


class Bundles(ABC):
    """What kernels do with several arrays. The pieces of a message from the dealer have streams of their own, which are
    read from their start."""

    xp: Any

    @abstractmethod
    def keystream(self, key: bytes, block: int, nbytes: int) -> Array: ...
    @abstractmethod
    def uniform(self, key: bytes, block: int, count: int, bits: int) -> Array: ...
    @abstractmethod
    def correction(self, key: bytes, value: Array, bits: int, xor: bool = False) -> Array: ...
    @abstractmethod
    def pack(self, words: Array, bits: int) -> Array: ...
    @abstractmethod
    def opened(self, mine: Array, payload: Array, bits: int, xor: bool = False) -> Array: ...
    @abstractmethod
    def unpack(self, payload: Array, count: int, bits: int) -> Array: ...

    def shares(self, keys: Sequence[bytes], pieces: Sequence[Piece]) -> list[Array]:
        """Each stream's first words below 2^bits, (length,) uint64, or its first bytes, (length,) uint8."""
        return [self.keystream(key, 0, piece.length) if piece.raw else self.uniform(key, 0, piece.length, piece.bits)
                for key, piece in zip(keys, pieces, strict=True)]

    def corrections(self, keys: Sequence[bytes], values: Sequence[Array], pieces: Sequence[Piece]) -> Array:
        """The payload that turns what `shares` gives party 1's peer into shares of the values: the pieces'
        corrections, one behind the other."""
        each = [self.correction(key, value, piece.bits, piece.raw)
                for key, value, piece in zip(keys, values, pieces, strict=True)]
        return each[0] if len(each) == 1 else self.xp.concatenate(each)

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

    def seal(self, items: Sequence[Item]) -> Array:
        """The payload that opens the items: the low bits of each, packed, one behind the other."""
        packed = [self.pack(_words(item), bits) for item, bits in items]
        return packed[0] if len(packed) == 1 else self.xp.concatenate(packed)

    def unseal(self, items: Sequence[Item], mine: Array, theirs: Array, xor: bool = False) -> list[Array]:
        """What `opened` says of each item: mine + theirs, or xor, from both parties' payloads."""
        found, start = [], 0
        for item, bits in items:
            stop = start + item.size * whole_bytes(bits)
            found.append(self.opened(_words(item), theirs[start:stop], bits, xor))
            start = stop
        return found


def _words(item: Array | Masked | Sealing) -> Array:
    if isinstance(item, Sealing):
        raise TypeError("these kernels do not fuse: mask words with Material.masked, which knows them")
    return item.words if isinstance(item, Masked) else item
