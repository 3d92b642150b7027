"""The client's loop: whatever the batches, each text gets its own results, in the order of the texts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.models.data.batch import Batch, Row
from secformer.models.run.gather import gather
from secformer.models.run.progress import Progress, silent
from secformer.mpc.meter import Cost

BY_TOKEN = {"hidden": True, "pooled": False}
Told = tuple[str, int, int]


def texts(lengths: list[int]) -> list[Row]:
    """Texts whose every token is told apart by its id."""
    return [Row(100 * i + np.arange(n), np.zeros(n, np.int64), np.ones(n, np.int64)) for i, n in enumerate(lengths)]


def answer(batch: Batch, tell: Progress) -> tuple[Mapping[str, np.ndarray], Cost]:
    """By token, the token's id twice; by text, the id of its first token. Every token costs a byte."""
    tell("half", 1, 2)
    tell("whole", 2, 2)
    found = {"hidden": np.stack([batch.ids, batch.ids], axis=1), "pooled": batch.ids[batch.starts]}
    return found, Cost(bytes=batch.tokens, rounds=1)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 40))
def test_every_text_gets_its_own_results(lengths: list[int], limit: int) -> None:
    rows = texts(lengths)
    found, cost = gather(rows, limit, BY_TOKEN, [answer], silent)
    assert len(found) == len(rows)
    assert cost.bytes == sum(lengths) and 1 <= cost.rounds <= len(rows)
    for row, results in zip(rows, found, strict=True):
        assert set(results) == {"hidden", "pooled"}
        np.testing.assert_array_equal(results["hidden"], np.stack([row.ids, row.ids], axis=1))
        assert results["pooled"].shape == () and results["pooled"] == row.ids[0]


def test_a_limit_of_one_position_asks_for_each_text_alone() -> None:
    asked: list[list[int]] = []

    def ask(batch: Batch, tell: Progress) -> tuple[Mapping[str, np.ndarray], Cost]:
        asked.append([len(row) for row in batch.rows])
        return answer(batch, tell)

    gather(texts([3, 1, 2]), 1, BY_TOKEN, [ask], silent)
    assert asked == [[1], [2], [3]]


def test_texts_of_similar_length_are_asked_for_together() -> None:
    asked: list[list[int]] = []

    def ask(batch: Batch, tell: Progress) -> tuple[Mapping[str, np.ndarray], Cost]:
        asked.append([len(row) for row in batch.rows])
        return answer(batch, tell)

    gather(texts([7, 2, 8, 2, 3]), 16, BY_TOKEN, [ask], silent)
    assert asked == [[2, 2], [3], [7, 8]]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 20))
def test_progress_adds_up(lengths: list[int], limit: int) -> None:
    """Equal shares for the batches, never backwards, and the last word is that all is done."""
    told: list[Told] = []
    calls = 0

    def ask(batch: Batch, tell: Progress) -> tuple[Mapping[str, np.ndarray], Cost]:
        nonlocal calls
        calls += 1
        return answer(batch, tell)

    gather(texts(lengths), limit, BY_TOKEN, [ask], lambda *some: told.append(some))
    assert told == [(what, done, 2 * calls) for done, what in enumerate(["half", "whole"] * calls, start=1)]


def test_a_result_that_the_architecture_does_not_name_is_an_error() -> None:
    with pytest.raises(KeyError, match="pooled"):
        gather(texts([2]), 8, {"hidden": True}, [answer], silent)
