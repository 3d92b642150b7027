"""Texts that run together: their order, their packing, and what a party knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.models.data.batch import Batch, Row, Steps, batches, blind_batch


def row(length: int, start: int = 1) -> Row:
    return Row(np.arange(start, start + length), np.zeros(length, np.int64), np.ones(length, np.int64))


LENGTHS = st.lists(st.integers(1, 40) | st.integers(90, 130), min_size=1, max_size=24)
LIMITS = st.integers(1, 300) | st.just(10**6)


def spared(lengths: Sequence[int]) -> bool:
    """At most a tenth more positions than tokens, for all texts together and for each, or eight for one."""
    longest, shortest = max(lengths), min(lengths)
    alone = 10 * longest <= 11 * shortest or longest - shortest <= 8
    return alone and 10 * len(lengths) * longest <= 11 * sum(lengths)


def cut(lengths: list[int], limit: int) -> list[tuple[list[int], Batch]]:
    return list(batches([row(n) for n in lengths], limit))


@given(LENGTHS, LIMITS)
def test_batches_hold_every_text_once(lengths: list[int], limit: int) -> None:
    rows = [row(n, start=100 * i) for i, n in enumerate(lengths)]
    seen: list[int] = []
    for places, batch in batches(rows, limit):
        seen += places
        assert [rows[i] for i in places] == list(batch.rows)
    assert sorted(seen) == list(range(len(rows)))


@given(LENGTHS, LIMITS)
def test_batches_keep_both_bounds(lengths: list[int], limit: int) -> None:
    """The limit of positions, except for a text that is longer by itself; and padding of at most a tenth."""
    for _, batch in cut(lengths, limit):
        assert batch.size * batch.longest <= limit or (batch.size == 1 and batch.longest > limit)
        assert spared(batch.lengths.tolist())


@given(LENGTHS, LIMITS)
def test_equal_lengths_stay_together_unless_the_limit_parts_them(lengths: list[int], limit: int) -> None:
    found = cut(lengths, limit)
    for length in set(lengths):
        holding = [batch for _, batch in found if length in batch.lengths]
        fits = max(1, limit // length)
        assert len(holding) == -(-lengths.count(length) // fits)


@given(LENGTHS, LIMITS)
def test_batches_are_as_few_as_can_be(lengths: list[int], limit: int) -> None:
    """No other cut of the sorted texts has fewer batches, or as few with fewer positions; by trying all of them."""
    parts = []
    for length in sorted(set(lengths)):
        count, fits = lengths.count(length), max(1, limit // length)
        parts += [[length] * fits] * (count // fits) + [[length] * (count % fits)] * (count % fits > 0)

    def all_cuts(at: int) -> tuple[int, int]:
        if at == len(parts):
            return 0, 0
        if at not in known:
            options = []
            for stop in range(at + 1, len(parts) + 1):
                texts = [n for part in parts[at:stop] for n in part]
                positions = len(texts) * max(texts)
                if stop == at + 1 or (positions <= limit and spared(texts)):
                    more = all_cuts(stop)
                    options.append((1 + more[0], positions + more[1]))
            known[at] = min(options)
        return known[at]

    known: dict[int, tuple[int, int]] = {}
    found = [batch for _, batch in cut(lengths, limit)]
    assert (len(found), sum(b.size * b.longest for b in found)) == all_cuts(0)


@given(LENGTHS, LIMITS, st.integers(2, 4))
def test_where_batches_are_too_few_the_largest_are_halved(lengths: list[int], limit: int, least: int) -> None:
    """As many as are asked for, if there are as many texts; no text is lost, no bound is broken, more is not cut."""
    rows = [row(n, 100 * i) for i, n in enumerate(lengths)]
    few, many = list(batches(rows, limit)), list(batches(rows, limit, least))
    assert sorted(i for places, _ in many for i in places) == list(range(len(rows)))
    assert len(many) == max(len(few), min(least, len(rows)))
    for places, batch in many:
        assert [len(each) for each in batch.rows] == [lengths[i] for i in places]
        assert any(set(places) <= set(whole) for whole, _ in few)
    if len(few) >= least:
        assert [places for places, _ in many] == [places for places, _ in few]


@pytest.mark.parametrize(("lengths", "least", "cut"), [
    ([5, 5], 2, [[5], [5]]), ([5, 5, 5], 2, [[5, 5], [5]]), ([8] * 4, 2, [[8, 8], [8, 8]]), ([5], 2, [[5]]),
    ([30, 31, 32, 33], 4, [[30], [31], [32], [33]]), ([9, 9, 60], 2, [[9, 9], [60]]),
    ([9, 9, 60], 3, [[9], [9], [60]])])
def test_halves_have_about_as_many_tokens(lengths: list[int], least: int, cut: list[list[int]]) -> None:
    found = [[len(each) for each in batch.rows] for _, batch in batches([row(n) for n in lengths], 10**6, least)]
    assert sorted(map(sorted, found)) == sorted(cut)


def test_short_texts_do_not_run_with_long_ones() -> None:
    """Without the bound on padding, all five would run together: 45 positions for 22 tokens."""
    assert [places for places, _ in cut([9, 2, 9, 1, 1], 1024)] == [[3, 4], [1], [0, 2]]


def test_a_shorter_text_may_join_where_it_costs_less_than_a_tenth() -> None:
    assert [places for places, _ in cut([10] * 9 + [5], 1024)] == [[9, *range(9)]]      # 100 positions for 95 tokens
    assert [places for places, _ in cut([10] * 3 + [5], 1024)] == [[3], [0, 1, 2]]      # 40 for 35: too many


def test_a_text_is_not_padded_by_more_than_a_tenth_for_the_sake_of_others() -> None:
    assert [places for places, _ in cut([110] * 30 + [100], 10**6)] == [[30, *range(30)]]
    assert [places for places, _ in cut([110] * 30 + [99], 10**6)] == [[30], [*range(30)]]


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
    rows = [9, 2, 9, 2]
    assert [places for places, _ in cut(rows, 5)] == [[1, 3], [0], [2]]
    assert [places for places, _ in cut(rows, 1)] == [[1], [3], [0], [2]]
    assert [places for places, _ in cut(rows, 36)] == [[1, 3], [0, 2]]
    assert cut([], 5) == []


def test_a_length_that_fills_batches_stands_alone() -> None:
    """What is left of it runs with its neighbours, where both bounds allow that; here the limit does not."""
    found = cut([8] * 5000 + [7] * 3, 16)
    assert len(found) == 2502 and {batch.size for _, batch in found} == {1, 2}


# ---- fillers ---------------------------------------------------------------------------------------------------------


def test_fillers_are_copies_of_the_first_token_that_nothing_attends_to() -> None:
    text = Row(np.array([7, 8, 9]), np.array([1, 0, 1]), np.array([1, 0, 1]))
    found = text.filled(5)
    assert found.ids.tolist() == [7, 8, 9, 7, 7] and found.segments.tolist() == [1, 0, 1, 1, 1]
    assert found.mask.tolist() == [1, 0, 1, 0, 0] and (len(found), found.own, found.fillers) == (5, 3, 2)
    again = found.filled(6)
    assert again.ids.tolist() == [7, 8, 9, 7, 7, 7] and (again.own, again.fillers) == (3, 3)
    assert text.filled(3) is text and text.filled(2) is text and text.fillers == 0


def test_a_batch_knows_its_fillers() -> None:
    masked = replace(row(2, start=5), mask=np.array([0, 1]))
    batch = Batch((row(3).filled(4), row(4, start=1), masked.filled(4)))
    assert batch.lengths.tolist() == [4, 4, 4] and batch.own_lengths.tolist() == [3, 4, 2] and batch.tokens == 12
    assert batch.positions.tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 0, 1, 0, 0]
    assert batch.like.tolist() == [0, 1, 2, 0, 4, 5, 6, 7, 8, 9, 8, 8]
    assert batch.counted(2).tolist() == [3, 4, 5, 3, 3, 4, 5, 6, 2, 3, 2, 2]
    assert batch.own.sum() == 9 and batch.present.all() and batch.mask.sum() == 8 and not batch.padded
    assert batch.unpacking.tolist() == list(range(12)) == batch.packing.tolist()
    assert batch.owners[12].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    same = Batch((row(3).filled(4), row(4, start=1), masked.filled(4)))
    assert same.public == batch.public != Batch((row(3).filled(4), row(4), masked.filled(3))).public
    other = replace(row(4), mask=np.array([1, 1, 1, 0]))  # the same mask, of a token of the text
    assert Batch((other,)).public != Batch((row(3).filled(4),)).public


def test_padding_stands_behind_fillers() -> None:
    batch = Batch((row(2).filled(3), row(5)))
    assert batch.steps.tolist() == [[0, 1, 0, 0, 0], [0, 1, 2, 3, 4]]
    assert batch.unpacking.tolist() == [0, 1, 2, 0, 0, 3, 4, 5, 6, 7]
    assert batch.positions.tolist() == [0, 1, 0, 0, 1, 2, 3, 4] and batch.padded


@pytest.mark.parametrize(("tokens", "length"), [(1, 8), (8, 8), (9, 16), (16, 16), (17, 20), (20, 20), (21, 21)])
def test_steps_end_at_the_longest(tokens: int, length: int) -> None:
    """A text that is longer than a model takes is refused elsewhere; it is not cut here."""
    assert Steps(8, 20).length(tokens) == length


@given(LENGTHS, LIMITS, st.integers(1, 40))
def test_texts_of_a_batch_are_filled_up_to_one_length(lengths: list[int], limit: int, step: int) -> None:
    rows, steps = [row(n, start=100 * i) for i, n in enumerate(lengths)], Steps(step, 120)
    seen: list[int] = []
    for places, batch in batches(rows, limit, 1, steps):
        seen += places
        assert not batch.padded and batch.longest == max(steps.length(lengths[i]) for i in places)
        assert batch.size * batch.longest <= limit or batch.size == 1
        for i, text in zip(places, batch.rows, strict=True):
            assert text.own == lengths[i] and text.ids[: text.own].tolist() == rows[i].ids.tolist()
    assert sorted(seen) == list(range(len(rows)))
