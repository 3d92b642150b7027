"""Named streams of uniform words: ChaCha20 under a key derived from a 256-bit seed and the stream's name.

The only file that asks the operating system for randomness. A name is used by one consumer only, so a keystream never
serves twice; two parties that know a seed expand the same words on any backend.

The format of the streams is part of every key. So versions that cut keystreams into words in different ways share no
keystream: the same name under the same seed gives words that have nothing in common.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Self

from secformer.mpc.backend import choose_backend
from secformer.mpc.errors import RangeError
from secformer.mpc.kernels import Kernels, NumpyKernels
from secformer.mpc.kernels.words import BLOCK_BYTES, Key, Sealing, drawn

FORMAT = "secformer keys 2"  # raise it whenever a name, or the words that are cut from a keystream, change
SEED_BYTES = 32
_PERSON = FORMAT.encode()  # at most 16 bytes
MAX_BLOCKS = 1 << 32  # RFC 8439 counts blocks in 32 bits: 256 GiB per stream

Name = str | int


def fresh_seed() -> bytes:
    """A new 256-bit seed from the operating system."""
    return secrets.token_bytes(SEED_BYTES)


def derive(seed: bytes, *name: Name) -> bytes:
    """The 256-bit key of a name under a seed: keyed BLAKE2b over the length-prefixed parts of the name, personalised
    with the format of the streams."""
    return next(derive_all(seed, spelt(*name), [b""]))


def derive_all(seed: bytes, first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    """The keys of all names that begin alike, in their spelling (see `spelt`): quicker than one by one."""
    return _ended(_begun(seed, first), rest)


def _ended(begun: Any, rest: Iterable[bytes]) -> Iterator[bytes]:
    """The keys of names that go on from a hash."""
    for more in rest:
        one = begun.copy()
        one.update(more)
        yield one.digest()


def _begun(seed: bytes, first: bytes) -> Any:
    """The hash of a key whose name begins so."""
    if len(seed) != SEED_BYTES:
        raise RangeError(f"a seed has {SEED_BYTES} bytes, got {len(seed)}; take one from fresh_seed()")
    return hashlib.blake2b(first, key=seed, digest_size=32, person=_PERSON)


def spelt(*name: Name) -> bytes:
    """The parts of a name, each with its type and length, so that different names never read alike."""
    return b"".join(map(_spelt, name))


@lru_cache(maxsize=1 << 14, typed=True)
def _spelt(part: Name) -> bytes:
    """Names are few and come again and again: a run's numbers and fields."""
    text = f"{type(part).__name__}:{part}".encode()
    return len(text).to_bytes(4, "little") + text


class Stream:
    """A named stream, read in order. Each read starts at a fresh 64-byte block."""

    def __init__(self, seed: bytes, *name: Name, kernels: Kernels | None = None):
        self._begin(derive(seed, *name), kernels if kernels is not None else NumpyKernels(choose_backend("numpy")))

    @classmethod
    def under(cls, words: Any, kernels: Kernels) -> Self:
        """The stream whose key is four uniform words, which may be in device memory. It has no name: read one stream
        alone under a key."""
        return cls._keyed(kernels.as_key(words), kernels)

    @classmethod
    def _keyed(cls, key: Key, kernels: Kernels) -> Self:
        stream = cls.__new__(cls)
        stream._begin(key, kernels)
        return stream

    def _begin(self, key: Key, kernels: Kernels) -> None:
        self._key, self._kernels, self._block = key, kernels, 0

    def read(self, nbytes: int) -> Any:
        """The next `nbytes` bytes as uint8."""
        return self._kernels.keystream(self._key, self._advance(-(-nbytes // BLOCK_BYTES)), nbytes)

    def words(self, count: int, bits: int = 64) -> Any:
        """`count` uniform words below 2^bits as uint64, of as many bytes as hold them."""
        return self._kernels.uniform(self._key, self._advance(drawn(count, bits)), count, bits)

    def sealing(self, words: Any, bits: int, constant: int = 0, *, away: bool = False, keeps: bool = False) -> Sealing:
        """Words to be sealed under the next uniform words below 2^bits: plus these, or minus where `away`."""
        return Sealing(self._key, self._advance(drawn(words.size, bits)), words, constant, away, keeps)

    def weigh(self, tables: Any, u: Any, shifts: Sequence[int], out: Any) -> None:
        """Xors into `out` what guards say of u, weighed with the next words (see `Kernels.weigh`)."""
        start = self._advance(drawn(u.size * len(shifts), 64))
        self._kernels.weigh(self._key, start, tables, u, shifts, out)

    def _advance(self, blocks: int) -> int:
        """Uses up so many blocks; the number of the first."""
        start = self._block
        if start + blocks > MAX_BLOCKS:
            raise RangeError("a stream gives 256 GiB at most; split the work over several names")
        self._block += blocks
        return start


class Streams:
    """The streams whose names begin alike: the seed and that beginning are hashed once for all."""

    def __init__(self, seed: bytes, *begin: Name, kernels: Kernels):
        self._begun, self._kernels = _begun(seed, spelt(*begin)), kernels

    def stream(self, *rest: Name) -> Stream:
        """The stream of the beginning and `rest`, from its start."""
        return Stream._keyed(self.keys(b"", [spelt(*rest)])[0], self._kernels)

    def keys(self, first: bytes, rest: Sequence[bytes]) -> list[bytes]:
        """The keys of the streams whose names go on alike, in their spelling (see `spelt`). Read each once, from its
        start: together with others (see `Bundles`), or as a `stream`."""
        begun = self._begun.copy()
        begun.update(first)
        return list(_ended(begun, rest))
