"""Authenticated shares in one party's hands, and all that a party computes with them alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prototypes.authenticated.wide import Array, Wide


@dataclass(frozen=True, eq=False)
class Authenticated:
    """A party's share of a value x and of its MAC alpha x, both modulo 2^(64 + s). Only the low 64 bits of x count."""

    value: Wide
    mac: Wide

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def __add__(self, other: Authenticated) -> Authenticated:
        return Authenticated(self.value + other.value, self.mac + other.mac)

    def __sub__(self, other: Authenticated) -> Authenticated:
        return Authenticated(self.value - other.value, self.mac - other.mac)

    def times(self, words: Array) -> Authenticated:
        """The product with public words, element by element, broadcasting."""
        return Authenticated(self.value.times(words), self.mac.times(words))


@dataclass(frozen=True, eq=False)
class Key:
    """A party's share of the key alpha, of shape (1,)."""

    rank: int
    share: Wide

    def public(self, words: Array) -> Authenticated:
        """This party's share of public words: party 0 holds the value, both hold their part of the MAC."""
        extra = self.share.extra
        value = Wide.of(words if self.rank == 0 else np.zeros_like(words), extra)
        return Authenticated(value, self.share.times(words))


@dataclass(frozen=True)
class Triple:
    """a, b uniform and c = a b modulo 2^64."""

    a: Authenticated
    b: Authenticated
    c: Authenticated
