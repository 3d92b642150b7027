"""The verb that tells whether shared rows are unit vectors: one 1, and else zeros."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from secformer.mpc.errors import ShapeError
from secformer.mpc.products import Products
from secformer.mpc.rounds import Later, Steps
from secformer.mpc.shares import Share

WORDS = 4     # of a coin, of a key, and of what says whether words are 0
SKETCHES = 2  # independent checks of every row: each squares the chance of a wrong one to pass
Span = tuple[int, int]


class UnitRows(Products):
    """What a session that checks clients' rows adds to its products."""

    def unit_rows(self, x: Share, spans: Sequence[Span]) -> Steps:
        """Steps (see `beside`) that give four words: all 0 if every row of x (N, C) has, in each of the S spans of
        columns, one 1 and else zeros, in whole words. Others pass with a small probability (see `ops/unit_rows`).

        Each party gets words of its own: both 0, or both not. They say nothing more, even to a party that deviates
        (see `ops/zero`).
        Raises ShapeError for rows that are not right in whole words, and for spans beyond them.
        Price: four rounds, or none beside a program; per party 128 bytes, and for each row and span 16 SKETCHES bytes.
        """
        self._own(x)
        if x.ndim != 2 or x.frac or x.width < 64 or not all(0 <= a < b <= x.shape[1] for a, b in spans):
            raise ShapeError(f"rows (N, C) of whole words without fractional bits are checked, in spans of their "
                             f"columns; got {x!r} and {list(spans)}")
        return self._unit_rows(x, spans)

    def _unit_rows(self, x: Share, spans: Sequence[Span]) -> Steps:
        coin = self._tossed()
        yield
        found = self._wrap(self._sketches(x, spans, SKETCHES, coin.found()), 0)
        left, right, both = (found[:, :, i * SKETCHES : (i + 1) * SKETCHES] for i in range(3))
        product = self.mul(left, right, whole=True)
        yield
        zeros = self.concatenate([product - both, found[:, :, 3 * SKETCHES :] + np.array(-1)], axis=2)
        return (yield from self.whether_zero(zeros, coin))

    def whether_zero(self, x: Share, coin: Later) -> Steps:
        """Steps (see `beside`) that give four words: 0 if all of x is, in whole words (see `ops/zero`)."""
        (key,) = self._given(partial(self._digest, x, coin.found()), [(WORDS,)])
        yield
        (words,) = self._given(partial(self._tags, key.found()), [(WORDS,)])
        yield
        return words.found()

    def _tossed(self) -> Later:
        """A coin of both parties: one round."""
        (coin,) = self._given(self._toss, [(WORDS,)])
        found: Later = coin
        return found
