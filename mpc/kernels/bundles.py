"""Several arrays of shares at once: all fields of a message from the dealer.

A GPU does each of these in one launch (`cuda/bundles`); here are the plain steps, array by array.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from secformer.mpc.kernels.words import Array, Piece


class Bundles(ABC):
    """What kernels do with the pieces of a message: each has the key of a stream of its own, which is read from its
    start."""

    xp: Any

    @abstractmethod
    def keystream(self, key: bytes, block: int, nbytes: int) -> Array: ...
    @abstractmethod
    def uniform(self, key: bytes, block: int, count: int, bits: int) -> Array: ...
    @abstractmethod
    def correction(self, key: bytes, value: Array, bits: int, xor: bool = False) -> Array: ...
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
