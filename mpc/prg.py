"""Named streams of uniform words: ChaCha20 under a key derived from a 256-bit seed and the stream's name.

The only file that asks the operating system for randomness. A name is used by one consumer only, so a keystream never
serves twice; two parties that know a seed expand the same words on any backend.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import numpy as np

from secformer.mpc.backend import choose_backend
from secformer.mpc.errors import RangeError
from secformer.mpc.kernels import NumpyKernels

SEED_BYTES = 32
BLOCK_BYTES = 64
MAX_BLOCKS = 1 << 32  # RFC 8439 counts blocks in 32 bits: 256 GiB a stream

Name = str | int


def fresh_seed() -> bytes:
    """A new 256-bit seed from the operating system."""
    return secrets.token_bytes(SEED_BYTES)


def derive(seed: bytes, *name: Name) -> bytes:
    """The 256-bit key of a name under a seed: keyed BLAKE2b over the length-prefixed parts of the name."""
    if len(seed) != SEED_BYTES:
        raise RangeError(f"a seed has {SEED_BYTES} bytes, got {len(seed)}; take one from fresh_seed()")
    parts = (f"{type(part).__name__}:{part}".encode() for part in name)
    message = b"".join(len(p).to_bytes(4, "little") + p for p in parts)
    return hashlib.blake2b(message, key=seed, digest_size=32).digest()


class Stream:
    """A named stream, read in order. Each read starts at a fresh 64-byte block."""

    def __init__(self, seed: bytes, *name: Name, kernels: NumpyKernels | None = None):
        self._key = derive(seed, *name)
        self._kernels = kernels if kernels is not None else NumpyKernels(choose_backend("numpy"))
        self._block = 0

    def read(self, nbytes: int) -> Any:
        """The next `nbytes` bytes as uint8."""
        blocks = -(-nbytes // BLOCK_BYTES)
        if self._block + blocks > MAX_BLOCKS:
            raise RangeError("a stream gives 256 GiB at most; split the work over several names")
        out = self._kernels.keystream(self._key, self._block, nbytes)
        self._block += blocks
        return out

    def words(self, count: int, bits: int = 64) -> Any:
        """`count` uniform words below 2^bits as uint64, drawn from 1, 2, 4 or 8 bytes each."""
        size = next(s for s in (1, 2, 4, 8) if bits <= 8 * s)
        words = self.read(count * size).view(f"u{size}").astype(np.uint64, copy=False)
        if bits < 8 * size:
            words &= np.uint64((1 << bits) - 1)
        return words
