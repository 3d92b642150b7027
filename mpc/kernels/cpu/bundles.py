"""Several arrays in one compiled call each: all fields of a correlation, all items of an opening, where they are small.

A call costs Python some microseconds, and a small array hardly more than that. Large arrays go one by one, because they
would have to be copied side by side first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from secformer.mpc.kernels.bundles import Item
from secformer.mpc.kernels.cpu import chacha, packing
from secformer.mpc.kernels.reference import NumpyKernels
from secformer.mpc.kernels.words import Array, Key, Mask, Masked, Piece, whole_bytes
from secformer.mpc.ring import mask

SMALL = 1 << 14  # words of all arrays together that still go in one call: they stay in the second-level cache


class Table(NamedTuple):
    """Where arrays lie in one buffer of words, and in a payload. Compiled loops read the facts, one row per array:
    elements, bytes of each on the wire, mask, 1 for raw bytes, first word in the buffer, first byte in the payload.

    words, nbytes  of the buffer, and of the payload
    spans          of each array in the buffer: first word, the one behind its last, and its bytes, or None for words
    """

    facts: Array
    words: int
    nbytes: int
    spans: tuple[tuple[int, int, int | None], ...]

    def arrays(self, buffer: Array) -> list[Array]:
        """The arrays in a buffer."""
        return [buffer[start:stop] if raw is None else buffer[start:stop].view(np.uint8)[:raw]
                for start, stop, raw in self.spans]


@lru_cache(maxsize=1 << 13)
def table(pieces: tuple[tuple[int, int, bool], ...]) -> Table | None:
    """Of arrays that are drawn and travel as pieces do; None where they are too large to go together."""
    rows, spans, at, start = [], [], 0, 0
    for length, bits, raw in pieces:
        rows.append((length, whole_bytes(bits), int(mask(bits)), int(raw), at, start))
        stop = at + (-(-length // 8) if raw else length)
        spans.append((at, stop, length if raw else None))
        at, start = stop, start + length * whole_bytes(bits)
    return Table(np.array(rows, dtype=np.uint64), at, start, tuple(spans)) if at <= SMALL else None


@lru_cache(maxsize=1 << 13)
def dealt(masks: tuple[Mask, ...]) -> Table | None:
    """Of masks that the dealer combines. The fourth fact is 1 for those that are xored; the last, the bits of the sum
    that count."""
    found = table(tuple((length, bits, False) for length, bits, _, _ in masks))
    if found is not None:
        facts = found.facts.copy()
        facts[:, 3] = [each.xor for each in masks]
        facts[:, 5] = [mask(64 if each.carries else each.bits) for each in masks]
        found = found._replace(facts=facts)
    return found


class Bundled(NumpyKernels):
    """The kernels that take several arrays at once: see `Bundles`, whose plain steps serve for large ones."""

    def combined(self, keys: Sequence[tuple[Key, Key]], masks: Sequence[Mask]) -> list[Array]:
        found = dealt(tuple(masks))
        if found is None:
            return [self._combined(each, m) for each, m in zip(keys, masks, strict=True)]
        out = np.empty(found.words, dtype=np.uint64)
        chacha.combined_all(_keys([key for each in keys for key in each]), found.facts, out)
        return found.arrays(out)

    def _combined(self, keys: tuple[Key, Key], m: Mask) -> Array:
        if m.xor:
            return super().combined([keys], [m])[0]
        out = np.empty(m.length, dtype=np.uint64)
        chacha.combined(*_keys(keys), whole_bytes(m.bits), mask(m.bits), mask(64 if m.carries else m.bits), out)
        return out

    def shares(self, keys: Sequence[Key], pieces: Sequence[Piece]) -> list[Array]:
        found = table(tuple(pieces))
        if found is None:
            return super().shares(keys, pieces)
        out = np.empty(found.words, dtype=np.uint64)
        chacha.shares(_keys(keys), found.facts, out)
        return found.arrays(out)

    def corrections(self, keys: Sequence[Key], values: Sequence[Array], pieces: Sequence[Piece]) -> Array:
        found = table(tuple(pieces))
        if found is None:
            return super().corrections(keys, values, pieces)
        flat = [_as_words(value) for value in values]
        out = np.empty(found.nbytes, dtype=np.uint8)
        chacha.corrections(_keys(keys), flat[0] if len(flat) == 1 else np.concatenate(flat), found.facts, out)
        return out

    def unpacked(self, payload: Array, pieces: Sequence[Piece]) -> list[Array]:
        found = table(tuple(pieces))
        if found is None:
            return super().unpacked(payload, pieces)
        out = np.empty(found.words, dtype=np.uint64)
        packing.unpack_all(payload, found.facts, out)
        return found.arrays(out)

    def seal(self, items: Sequence[Item]) -> Array:
        if len(items) > 1:
            words: list[Array] = [item.words if isinstance(item, Masked) else item for item, _ in items]
            found = table(tuple([(w.size, bits, False) for w, (_, bits) in zip(words, items, strict=True)]))
            if found is not None and all([w.dtype == np.uint64 for w in words]):
                out = np.empty(found.nbytes, dtype=np.uint8)
                packing.pack_all(np.concatenate(words, axis=None), found.facts, out)
                return out
        return super().seal(items)

    def unseal(self, items: Sequence[Item], mine: Array, theirs: Array, xor: bool = False) -> list[Array]:
        if len(items) > 1:
            found = table(tuple([(item.size, bits, False) for item, bits in items]))
            if found is not None:
                out = np.empty(found.words, dtype=np.uint64)
                packing.open_all(mine, theirs, found.facts, xor, out)
                return found.arrays(out)
        return super().unseal(items, mine, theirs, xor)


def _keys(keys: Sequence[Key]) -> Array:
    """(n, 8) words of 32 bits."""
    return np.frombuffer(b"".join(keys), dtype="<u4").reshape(-1, 8)


def _as_words(value: Array) -> Array:
    """A value's words, flat; bytes as the words that hold them."""
    flat = value.reshape(-1)
    if flat.dtype != np.uint8:
        return flat
    if rest := -flat.size % 8:
        flat = np.concatenate([flat, np.zeros(rest, dtype=np.uint8)])
    return flat.view(np.uint64)
