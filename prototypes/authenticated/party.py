"""One of two parties: openings and products of authenticated shares, and the check of all openings before the end."""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

import numpy as np

from prototypes.authenticated.shares import Authenticated, Key, Triple
from prototypes.authenticated.wide import WORD_BYTES, Array, Wide
from secformer.mpc.net.channel import Channel
from secformer.mpc.net.wire import Tag
from secformer.mpc.prg import SEED_BYTES, Stream, fresh_seed

COMMITMENT_BYTES = 32


class CheatingParty(Exception):
    """An opening, a MAC or a commitment is not what the other party should have sent. Nothing that was computed may
    leave, and the key must not be used again: what was opened in the check tells something about it."""


class Opening(NamedTuple):
    """A share, and the low words of both parties' shares, added up as integers."""

    share: Authenticated
    total: Wide


class Party:
    """A party that holds its share of the key. Both parties call the same methods in the same order."""

    def __init__(self, key: Key, channel: Channel):
        self.key, self._channel = key, channel
        self._step = 0
        self._openings: list[Opening] = []

    def open(self, x: Authenticated) -> Array:
        """x modulo 2^64. One round, 8 bytes per word from each party. It is certain after `check` alone."""
        return self._open([x])[0]

    def multiply(self, x: Authenticated, y: Authenticated, triple: Triple) -> Authenticated:
        """x y, element by element, broadcasting. One round, 8 bytes per word of x and of y from each party.

        1. open d <- x - a and e <- y - b
        2. return c + d b + e a + d e
        """
        d, e = self._open([x - triple.a, y - triple.b])                     # 1
        return triple.c + triple.b.times(d) + triple.a.times(e) + self.key.public(d * e)  # 2

    def check(self, mask: Authenticated) -> None:
        """Checks all openings since the last check, with a mask, of shape (1,), that serves this once. Five rounds and
        184 bytes from each party, however many openings there were.

        1. toss a coin; it gives a uniform word chi_j for each opened word x_j
        2. exchange p <- sum chi_j high(x_j) + mask, modulo 2^s
        3. y <- sum chi_j low(x_j) + 2^64 p
        4. z <- sum chi_j mac_j + 2^64 mac(mask) - alpha y; exchange commitments to z, then z
        5. the z of both parties must add up to 0

        Raises CheatingParty. A wrong opening passes with a probability of at most about 2^(log2(s + 1) - s).
        """
        stream, extra = Stream(self._coin(), "coefficients"), self.key.share.extra            # 1
        low, high = (Wide.of(np.zeros(1, np.uint64), extra) for _ in range(2))
        mac = low
        for share, total in self._openings:
            chi = np.asarray(stream.words(share.value.low.size)).reshape(share.shape)
            low += total.times(chi).total()
            high += Wide.of(share.value.high, extra).times(chi).total()
            mac += share.mac.times(chi).total()
        self._openings = []
        p = Wide.above(self._swapped("upper bits", (high + mask.value).low), extra)           # 2
        y = low + p                                                                           # 3
        z = mac + Wide.above(mask.mac.low, extra) - self.key.share * y                        # 4
        theirs = self._committed("residue", z.tobytes())
        if any((z + _wide(theirs, extra)).ints()):                                            # 5
            raise CheatingParty("the MACs do not fit what was opened: a party sent other words than its share; discard "
                                "the results and this key")

    def _open(self, values: list[Authenticated]) -> list[Array]:
        """Opens several values in one round."""
        mine = np.concatenate([v.value.low.ravel() for v in values])
        tag = self._send("open", mine)
        theirs = self._receive(tag, mine.size)
        found, start = [], 0
        for value in values:
            words = theirs[start : start + value.value.low.size].reshape(value.shape)
            start += words.size
            extra = value.value.extra
            total = Wide.of(value.value.low, extra) + Wide.of(words, extra)
            self._openings.append(Opening(value, total))
            found.append(total.low)
        return found

    def _coin(self) -> bytes:
        """A seed that neither party chose. Two rounds."""
        mine = fresh_seed()
        theirs = self._committed("coin", mine)
        return bytes(a ^ b for a, b in zip(mine, theirs, strict=True))

    def _committed(self, what: str, mine: bytes) -> bytes:
        """The other party's bytes, as many as mine; each side is bound to its own before it sees the other's. The
        commitment names its party, so that a party cannot send the other's back."""
        nonce = fresh_seed()
        fixed = self._exchanged(f"{what} fixed", _commitment(self.key.rank, nonce + mine), COMMITMENT_BYTES)
        opened = self._exchanged(what, nonce + mine, SEED_BYTES + len(mine))
        if not hmac.compare_digest(fixed, _commitment(1 - self.key.rank, opened)):
            raise CheatingParty(f"what came as {what} is not what was committed to; discard the results and this key")
        return opened[SEED_BYTES:]

    def _swapped(self, what: str, words: Array) -> Array:
        """The sum of both parties' words."""
        return words + self._receive(self._send(what, words), words.size)

    def _exchanged(self, what: str, mine: bytes, size: int) -> bytes:
        self._step += 1
        tag = Tag(self._step, what, 8, size)
        self._channel.send(tag, np.frombuffer(mine, np.uint8))
        return bytes(self._channel.receive(tag, size))

    def _send(self, what: str, words: Array) -> Tag:
        self._step += 1
        tag = Tag(self._step, what, 64, words.size)
        self._channel.send(tag, np.frombuffer(words.astype("<u8").tobytes(), np.uint8))
        return tag

    def _receive(self, tag: Tag, count: int) -> Array:
        return np.frombuffer(bytes(self._channel.receive(tag, WORD_BYTES * count)), "<u8").astype(np.uint64)


def _commitment(rank: int, content: bytes) -> bytes:
    return hashlib.blake2b(bytes([rank]) + content, digest_size=COMMITMENT_BYTES, person=b"commitment").digest()


def _wide(content: bytes, extra: int) -> Wide:
    """The inverse of `Wide.tobytes`, for one word."""
    low, high = np.frombuffer(content, "<u8").astype(np.uint64).reshape(2, 1)
    return Wide(low, high, extra)
