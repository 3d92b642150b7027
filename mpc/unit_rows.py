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
        """Opens words (S, N, SKETCHES + 1) that are all 0 if every row of x (N, C) has, in each of the S spans of
        columns, one 1 and else zeros, in whole words. Others pass with a small probability (see `ops/unit_rows`).

        Both parties get the words. Of unit rows they say nothing; of others, values of the row that was wrong.
        Raises ShapeError for rows that are not right in whole words, and for spans beyond them.
        Price: three rounds; per party 32 bytes, and for each row and span 16 SKETCHES + 8 (SKETCHES + 1) bytes.
        """
        self._own(x)
        if x.ndim != 2 or x.frac or x.width < 64 or not all(0 <= a < b <= x.shape[1] for a, b in spans):
            raise ShapeError(f"rows (N, C) of whole words without fractional bits are checked, in spans of their "
                             f"columns; got {x!r} and {list(spans)}")
        found = self._wrap(self._sketches(x, spans, SKETCHES), 0)
        left, right, both = (found[:, :, i * SKETCHES : (i + 1) * SKETCHES] for i in range(3))
        product = self.mul(left, right, whole=True)
        zeros = self.concatenate([product - both, found[:, :, 3 * SKETCHES :] + np.array(-1)], axis=2)
        return self._shown(zeros)
