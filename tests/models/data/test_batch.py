"""Texts that run together: their order, their packing, and what a party knows of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secformer.models.data.batch import Batch, Row, batches


def row(length: int, start: int = 1) -> Row:
    return Row(np.arange(start, start + length), np.zeros(length, np.int64), np.ones(length, np.int64))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=9), st.integers(1, 30))
def test_batches_hold_every_text_once_within_the_limit(lengths: list[int], limit: int) -> None:
    rows = [row(n) for n in lengths]
    seen: list[int] = []
    for places, batch in batches(rows, limit):
        seen += places
        assert [rows[i] for i in places] == list(batch.rows)
        assert batch.size == 1 or batch.size * batch.longest <= limit
    assert sorted(seen) == list(range(len(rows)))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_packing_and_unpacking(lengths: list[int]) -> None:
    batch = Batch(tuple(row(n, start=10 * i) for i, n in enumerate(lengths)))
    unpacked = batch.ids[batch.unpacking].reshape(batch.size, batch.longest)
    for out, r in zip(unpacked, batch.rows, strict=True):
        assert out[: len(r)].tolist() == r.ids.tolist()
        assert set(out[len(r):].tolist()) <= {int(r.ids[0])}
    assert unpacked.reshape(-1)[batch.packing].tolist() == batch.ids.tolist()
    assert batch.positions.tolist() == [i for n in lengths for i in range(n)]
    assert batch.padded == (len(set(lengths)) > 1)
