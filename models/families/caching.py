"""Decoding token by token: new tokens attend to those of their text that came before, whose keys and values are cached.

A text's tokens have positions; what is cached of them has slots (see `mpc/caches`). The `Timeline` says which slot has
which position. It is public, and a client and both parties count alike.

n new tokens, H heads of queries, G heads of keys, R = H / G, D entries of a head, T slots.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from secformer.models.data.parameters import Parameters
from secformer.models.families.attending import prefix_names
from secformer.models.families.blocks import Forward, attending
from secformer.models.families.decoder import Decoder
from secformer.mpc.caches import Cache
from secformer.mpc.errors import InputError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.ranges import Site

SLOTS = 64  # slots come in so many at a time: programs are the same until the next ones are needed
NOWHERE = -1


class Timeline:
    """Which position of the text each slot has, NOWHERE where it has none any more.

    first  slots that a public prefix takes, in order
    """

    def __init__(self, first: int = 0):
        self._positions = np.arange(first)
        self.first, self.length = first, first

    @property
    def used(self) -> int:
        """Slots that are used up."""
        return len(self._positions)

    @property
    def digest(self) -> str:
        """SHA-256 of where everything stands."""
        facts = f"{self.first}:{self.length}:".encode() + self._positions.astype("<i8").tobytes()
        return hashlib.sha256(facts).hexdigest()

    def capacity(self, new: int) -> int:
        """Slots that a step of so many new tokens takes part with: always more than are used, so that every step has
        masked ones, and a program does not depend on that."""
        return (self.used + new) // SLOTS * SLOTS + SLOTS

    def take(self, new: int) -> np.ndarray:
        """Positions (n,) of new tokens, which take the next slots."""
        positions = np.arange(self.length, self.length + new)
        self._positions = np.concatenate([self._positions, positions])
        self.length += new
        return positions

    def back(self, length: int) -> None:
        """Goes back to a text of so many tokens. The slots of later ones stay used up. Raises InputError for a length
        that is not there, or within the prefix."""
        if not self.first <= length <= self.length:
            raise InputError(f"a text of {self.length} tokens, the first {self.first} of them public, can go back to "
                             f"{self.first} to {self.length} tokens; got {length}")
        self._positions = np.where(self._positions < length, self._positions, NOWHERE)
        self.length = length

    def seen(self, positions: np.ndarray, capacity: int, reach: int | None) -> np.ndarray:
        """(n, T) bool: the slots that tokens at these positions attend to: their own, and up to `reach` before it."""
        slots = np.full(capacity, NOWHERE)
        slots[: self.used] = self._positions
        seen = (slots != NOWHERE) & (slots <= positions[:, None])
        return np.asarray(seen if reach is None else seen & (slots >= positions[:, None] - reach))


Pair = tuple[Cache, Cache]  # a layer's keys and values


def caches(s: Session, decoder: Decoder, parameters: Parameters) -> list[Pair]:
    """A text's caches in a session, by layer: empty but for a public prefix, if there is one."""
    row = decoder.spec.groups, decoder.spec.size
    found = []
    for i in range(decoder.spec.layers):
        keys, values = (parameters.matrices.get(name) for name in prefix_names(i))
        found.append((s.cache(2 * i, row, keys), s.cache(2 * i + 1, row, values)))
    return found


@dataclass(frozen=True, eq=False)
class Cached:
    """Attention (see `Attending`) of new tokens of one text: they meet those in the caches, and each other.

    positions  (n,)
    caches     keys and values, by layer
    seen       by reach, the slots that each token meets, (n, T)
    """

    positions: np.ndarray = field(repr=False)
    caches: Sequence[Pair]
    seen: Callable[[int | None], np.ndarray] = field(repr=False)

    def __call__(self, s: Session, q: Share, k: Share, v: Share, f: Forward, at: Site, layer: int,
                 reach: int | None) -> Share:
        """softmax(q k^T) v: q (n, H, D), k, v (n, G, D) -> (n, H D). Rounds as without caches."""
        (n, heads, size), groups = q.shape, k.shape[1]
        keys, values = self.caches[layer]
        each = heads // groups
        queries = q.reshape(n, groups, each, size).transpose(1, 0, 2, 3).reshape(1, groups, n * each, size)
        with s.scope("linear"):
            scores = s.matmul(queries, keys.taking(k).transposed(), magnitude=attending(s, f, at))
        with s.scope("softmax"):
            real = np.repeat(self.seen(reach), each, axis=0)[None, None]          # (1, 1, n R, T)
            context = f.recipe.softmax(s, scores, values.taking(v), real, at)
        return context.reshape(groups, n, each, size).transpose(1, 0, 2, 3).reshape(n, heads * size)


def last_tokens(s: Session, decoder: Decoder, parameters: Parameters, tokens: int) -> Cached:
    """Attention of the last tokens of the longest text: to record what such a step takes."""
    timeline, pairs = Timeline(len(decoder.spec.prefix)), caches(s, decoder, parameters)
    before = decoder.spec.longest - tokens - timeline.length
    timeline.take(before)
    capacity = timeline.capacity(tokens)
    positions = timeline.take(tokens)
    for cache in (cache for pair in pairs for cache in pair):
        cache.filled += before
        cache.grow(capacity)
    return Cached(positions, pairs, lambda reach: timeline.seen(positions, capacity, reach))
