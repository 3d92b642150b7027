"""The trusted dealer: it knows the key and every mask, and no value of the parties.

What it makes is uniform at each party alone: the share of party 0 is drawn, the share of party 1 is the rest. In the
engine party 0 would expand its shares from a seed, and party 1 its value shares of masks. Only the rest would travel:
the MAC of every word, and the low 64 bits of what is derived from masks.
"""

from __future__ import annotations

import math

import numpy as np

from prototypes.authenticated.shares import Authenticated, Key, Triple
from prototypes.authenticated.wide import Array, Wide
from secformer.mpc.prg import Stream

Pair = tuple[Authenticated, Authenticated]
Shape = tuple[int, ...]


class Dealer:
    """A dealer with a 256-bit seed, for words modulo 2^(64 + extra). `alpha` is the key: a uniform word of `extra`
    bits; of 64 bits where `extra` is 0, as MACs without extra bits would have it."""

    def __init__(self, seed: bytes, extra: int = 64):
        self.extra = extra
        self._stream = Stream(seed, "authenticated shares")
        self.alpha = self._stream.words(1, extra or 64)
        shares = self._split(Wide.of(self.alpha, extra))
        self.keys = Key(0, shares[0]), Key(1, shares[1])

    def share(self, words: Array) -> Pair:
        """Words below 2^64 as authenticated shares. The s bits above them are uniform."""
        return self._authenticated(Wide(words, self._words(words.shape), self.extra))

    def random(self, shape: Shape) -> Pair:
        """Authenticated shares of uniform words."""
        return self._authenticated(self._uniform(shape))

    def triple(self, x: Shape, y: Shape) -> tuple[Triple, Triple]:
        """A triple for operands of these shapes, which broadcast."""
        a, b = self._uniform(x), self._uniform(y)
        made = [self._authenticated(v) for v in (a, b, a * b)]
        return Triple(*(pair[0] for pair in made)), Triple(*(pair[1] for pair in made))

    def _authenticated(self, value: Wide) -> Pair:
        values, macs = self._split(value), self._split(value.times(self.alpha))
        return Authenticated(values[0], macs[0]), Authenticated(values[1], macs[1])

    def _split(self, value: Wide) -> tuple[Wide, Wide]:
        first = self._uniform(value.shape)
        return first, value - first

    def _uniform(self, shape: Shape) -> Wide:
        return Wide(self._words(shape), self._words(shape), self.extra)

    def _words(self, shape: Shape) -> Array:
        words: Array = np.asarray(self._stream.words(math.prod(shape)).reshape(shape))
        return words
