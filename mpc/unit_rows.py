"""The verb that tells whether shared rows are unit vectors: one 1, and else zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from secformer.mpc.errors import ShapeError
from secformer.mpc.products import Products
from secformer.mpc.shares import Share

SKETCHES = 2  # independent checks of every row: each squares the chance of a wrong one to pass
Span = tuple[int, int]


class UnitRows(Products):
    """What a session that checks clients' rows adds to its products."""

    def unit_rows(self, x: Share, spans: Sequence[Span]) -> Any:
        """Four words that are all 0 if every row of x (N, C) has, in each of the S spans of columns, one 1 and else
        zeros, in whole words. Others pass with a small probability (see `ops/unit_rows`).

        Each party gets words of its own: both 0, or both not. They say nothing more, even to a party that deviates
        (see `ops/zero`).
        Raises ShapeError for rows that are not right in whole words, and for spans beyond them.
        Price: four rounds; per party 128 bytes, and for each row and span 16 SKETCHES bytes.
        """
        self._own(x)
        if x.ndim != 2 or x.frac or x.width < 64 or not all(0 <= a < b <= x.shape[1] for a, b in spans):
            raise ShapeError(f"rows (N, C) of whole words without fractional bits are checked, in spans of their "
                             f"columns; got {x!r} and {list(spans)}")
        coin = self._toss()
        found = self._wrap(self._sketches(x, spans, SKETCHES, coin), 0)
        left, right, both = (found[:, :, i * SKETCHES : (i + 1) * SKETCHES] for i in range(3))
        product = self.mul(left, right, whole=True)
        zeros = self.concatenate([product - both, found[:, :, 3 * SKETCHES :] + np.array(-1)], axis=2)
        return self._whether_zero(zeros, coin)
