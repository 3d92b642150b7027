"""How a batch of tokens enters the computation: shapes, streams and sharing of the client's input, in one place.

There are two ways. Private: the client shares a one-hot row per token, with a 1 at the token's word and a 1 at its
segment, and the parties multiply the row with the secret tables. Client: the client holds the tables and shares the
embedding sums.

Clients of served parties share rows as short keys (`RowKeys`), which each party expands, and which the parties check.
In process, and for sums, party 1's share is expanded from a seed, and party 0's share is the value minus party 1's.

N tokens of all texts of a batch, V words, S segments, C hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from secformer.models.data.batch import Batch
from secformer.models.data.shares import uniform
from secformer.mpc.fixed import encode
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.points import PointKeys
from secformer.mpc.points import keys_of
from secformer.mpc.prg import derive
from secformer.mpc.ring import WORD_BITS

ONE_HOT, SUMS = "one-hot", "embeddings"  # the names of the streams that party 1's share is expanded from
POINTS, SEGMENTS = "points", "segments"  # the names of what a client draws for keys


@dataclass(frozen=True)
class Request:
    """One batch's input, as a party gets it.

    words    makes the party's share when it is called
    shape    (N, V + S) for one-hot rows, (N, C) for embedding sums
    private  True: one-hot rows, without fractional bits; False: embedding sums with the session's fractional bits
    width    bits per word
    spans    columns in each of which a row must have one 1, which the parties check; none: nothing is checked
    """

    words: Callable[[], Any] = field(repr=False)
    shape: tuple[int, int]
    private: bool
    width: int = WORD_BITS
    spans: tuple[tuple[int, int], ...] = ()

    def ghost(self) -> Request:
        """The same request for the plan recorder, which looks at shapes alone."""
        return replace(self, words=lambda: np.broadcast_to(np.uint64(0), self.shape))

    def holding(self, words: Any) -> Request:
        """The same request for words that are on a GPU already."""
        return replace(self, words=lambda: words)


@dataclass(frozen=True, eq=False)
class RowKeys:
    """One party's share of one-hot rows, in short.

    points    keys of the words' part (N, V)
    segments  the share of the segments' part itself, (N, S) uint64: it is short
    """

    points: PointKeys
    segments: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class TokenInputs:
    """The sizes of a model's input.

    words     V, the number of rows of the word table: ids lie in 0..V-1
    segments  S, the number of rows of the segment table; 0 where the family has none
    longest   the largest number of tokens that one text may have
    hidden    C, the number of entries of an embedding sum
    prompt    what is put before every text, and before the first text of every pair; token ids are taken as they are
    lower     texts are put into lower case
    pad       id of the padding token in models that count positions without it: there, it must stand where the
              attention mask is 0, and nowhere else; None: the mask alone says what is padding
    before    tokens of a public prefix, behind which every text stands: no text has them, and `longest` leaves them out
    """

    words: int
    segments: int
    longest: int
    hidden: int
    prompt: str = ""
    lower: bool = False
    pad: int | None = None
    before: tuple[int, ...] = ()

    @property
    def context(self) -> int:
        """The most tokens of a text and the public prefix together."""
        return len(self.before) + self.longest

    @property
    def columns(self) -> int:
        """V + S, the number of entries of a one-hot row."""
        return self.words + self.segments

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """The columns in each of which a row has one 1: those of words, those of segments."""
        return ((0, self.words), *(((self.words, self.columns),) if self.segments else ()))

    def one_hot(self, batch: Batch, dtype: Any) -> np.ndarray:
        """(N, V + S): 1 at each token's word and at V plus its segment."""
        rows = np.zeros((batch.tokens, self.columns), dtype)
        self._add_ones(rows, batch)
        return rows

    def _add_ones(self, rows: Any, batch: Batch, asarray: Callable[[Any], Any] = np.asarray) -> None:
        starts = np.arange(batch.tokens) * self.columns
        places = starts + batch.ids
        if self.segments:  # at other places of the row: no place comes twice
            places = np.concatenate([places, starts + self.words + batch.segments])
        rows.reshape(-1)[asarray(places)] += 1

    def private_request(self, batch: Batch, width: int, words: Callable[[], Any]) -> Request:
        """A request of one-hot rows, or of a share of such rows. `width` is the word table's, in bits."""
        return Request(words, (batch.tokens, self.columns), True, width)

    def client_request(self, batch: Batch, words: Callable[[], Any]) -> Request:
        """A request of embedding sums, or of a share of such sums."""
        return Request(words, (batch.tokens, self.hidden), False)

    def expanded(self, batch: Batch, width: int, seed: bytes, kernels: Kernels | None = None) -> Any:
        """Party 1's share (N, V + S) of one-hot rows."""
        return uniform(seed, ONE_HOT, (batch.tokens, self.columns), width, kernels)

    def expanded_sums(self, batch: Batch, seed: bytes) -> np.ndarray:
        """Party 1's share (N, C) of embedding sums."""
        return np.asarray(uniform(seed, SUMS, (batch.tokens, self.hidden)))

    def private_halves(self, batch: Batch, width: int, seed: bytes,
                       kernels: Kernels | None = None) -> tuple[Request, Request]:
        """Both parties' shares of one-hot rows, for token ids that stay secret: party 0's and party 1's. They are made
        where `kernels` compute, by default on the host."""

        def party0() -> Any:
            words = self.expanded(batch, width, seed, kernels)
            np.negative(words, out=words)  # in place: with many words, these are the largest arrays of all
            self._add_ones(words, batch, np.asarray if kernels is None else kernels.backend.asarray)
            return words

        def party1() -> Any:
            return self.expanded(batch, width, seed, kernels)

        return self.private_request(batch, width, party0), self.private_request(batch, width, party1)

    def keys(self, batch: Batch, seed: bytes) -> tuple[RowKeys, RowKeys]:
        """Both parties' keys of the batch's one-hot rows. A fresh seed serves once."""
        first, second = keys_of(batch.ids, self.words, derive(seed, POINTS))
        mask = np.asarray(uniform(seed, SEGMENTS, (batch.tokens, self.segments)))
        there = (np.arange(self.segments) == batch.segments[:, None]).astype(np.uint64)
        return RowKeys(first, there - mask), RowKeys(second, mask)

    def rows(self, keys: RowKeys, kernels: Kernels) -> Any:
        """The share (N, V + S) of one-hot rows behind one party's keys, in whole words."""
        out = kernels.xp.empty((len(keys.points), self.columns), dtype=np.uint64)
        kernels.points(keys.points, out[:, : self.words])
        out[:, self.words :] = kernels.backend.asarray(keys.segments)
        return out

    def client_halves(self, batch: Batch, sums: np.ndarray, frac: int, seed: bytes) -> tuple[Request, Request]:
        """Both parties' shares of embedding sums (N, C) that the client looked up: party 0's and party 1's."""

        def party0() -> np.ndarray:
            return np.asarray(encode(sums, frac) - self.expanded_sums(batch, seed))

        def party1() -> np.ndarray:
            return self.expanded_sums(batch, seed)

        return self.client_request(batch, party0), self.client_request(batch, party1)
