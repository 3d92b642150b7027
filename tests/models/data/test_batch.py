"""Texts that run together: their order, their packing, and what a party knows of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secformer.models.data.batch import Batch, Row, batches, blind_batch


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


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_each_texts_first_token(lengths: list[int]) -> None:
    batch = Batch(tuple(row(n, start=10 * i) for i, n in enumerate(lengths)))
    assert batch.ids[batch.starts].tolist() == [10 * i for i in range(len(lengths))]
    assert (batch.tokens, batch.longest, batch.size) == (sum(lengths), max(lengths), len(lengths))


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=4))
def test_a_party_knows_lengths_and_masks_and_nothing_else(masks: list[list[bool]]) -> None:
    """Everything public of the batch follows from what a party is told: shapes, packing, the mask with its holes."""
    rows = [replace(row(len(mask), start=7), segments=np.ones(len(mask), np.int64), mask=np.array(mask, np.int64))
            for mask in masks]
    batch = Batch(tuple(rows))
    blind = blind_batch(batch.lengths, batch.mask)
    for name in ("lengths", "mask", "present", "starts", "packing", "unpacking", "positions"):
        np.testing.assert_array_equal(getattr(blind, name), getattr(batch, name))
    assert blind.padded == batch.padded
    assert not blind.ids.any() and not blind.segments.any()


def test_masks_reach_as_far_as_their_text() -> None:
    holes = replace(row(3), mask=np.array([0, 1, 1]))
    assert Batch((row(2), holes)).mask.tolist() == [[True, True, False], [False, True, True]]
    assert Batch((row(2), holes)).present.tolist() == [[True, True, False], [True, True, True]]


def test_a_text_beyond_the_limit_runs_alone() -> None:
    rows = [row(9), row(2), row(9), row(2)]
    assert [places for places, _ in batches(rows, 5)] == [[1, 3], [0], [2]]
    assert [places for places, _ in batches(rows, 1)] == [[1], [3], [0], [2]]
    assert [places for places, _ in batches(rows, 36)] == [[1, 3, 0, 2]]
    assert list(batches([], 5)) == []
