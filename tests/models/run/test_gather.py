"""The client's loop: whatever the batches, each text gets its own results, in the order of the texts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.models.data.batch import Batch, Row
from secformer.models.run.gather import Ask, dealt, gather
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


# ---- several asks at the same time ----------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 40), st.integers(2, 3))
def test_asks_at_the_same_time_find_the_same(lengths: list[int], limit: int, many: int) -> None:
    """Their bytes add up, and of the rounds those of the busiest count; progress never goes backwards."""
    told: list[Told] = []
    rows, calls = texts(lengths), [0] * many

    def asking(number: int) -> Ask:
        def ask(batch: Batch, tell: Progress) -> tuple[Mapping[str, np.ndarray], Cost]:
            calls[number] += 1
            return answer(batch, tell)

        return ask

    found, cost = gather(rows, limit, BY_TOKEN, [asking(n) for n in range(many)], lambda *some: told.append(some))
    wanted, one = gather(rows, limit, BY_TOKEN, [answer], silent)
    for mine, theirs in zip(found, wanted, strict=True):
        for name, values in theirs.items():
            np.testing.assert_array_equal(mine[name], values)
    assert cost.bytes == one.bytes == sum(lengths) and cost.rounds == max(calls)
    assert sum(calls) >= min(many, len(rows)) and sum(calls) >= one.rounds
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1][1:] == (2 * sum(calls), 2 * sum(calls)) and {total for _, _, total in told} == {2 * sum(calls)}


def test_asks_really_run_at_the_same_time() -> None:
    """Each waits until the other has begun."""
    together = threading.Barrier(2, timeout=30)

    def ask(batch: Batch, tell: Progress) -> tuple[Mapping[str, np.ndarray], Cost]:
        together.wait()
        return answer(batch, tell)

    gather(texts([3, 3]), 99, BY_TOKEN, [ask, ask], silent)


def test_a_single_text_is_asked_for_in_the_callers_thread() -> None:
    here: list[threading.Thread] = []

    def ask(batch: Batch, tell: Progress) -> tuple[Mapping[str, np.ndarray], Cost]:
        here.append(threading.current_thread())
        return answer(batch, tell)

    gather(texts([3]), 99, BY_TOKEN, [ask, ask], silent)
    assert here == [threading.current_thread()]


@pytest.mark.parametrize("where", ["ask", "progress", "interrupt"])
def test_an_error_ends_the_other_asks(where: str) -> None:
    """Whatever fails is raised; the other ask is told to give up, and what it had not begun is not begun."""
    problem = KeyboardInterrupt() if where == "interrupt" else ZeroDivisionError("it failed")
    given_up, began, asked = threading.Event(), threading.Event(), []

    def slow(batch: Batch, tell: Progress) -> tuple[Mapping[str, np.ndarray], Cost]:
        asked.append("slow")
        began.set()
        assert given_up.wait(30)
        return answer(batch, tell)

    def failing(batch: Batch, tell: Progress) -> tuple[Mapping[str, np.ndarray], Cost]:
        asked.append("failing")
        assert began.wait(30)
        if where == "ask":
            raise problem
        return answer(batch, tell)

    def tell(*told: Any) -> None:
        if where != "ask":
            raise problem

    with pytest.raises(type(problem)):
        gather(texts([3, 3, 3, 3]), 3, BY_TOKEN, [slow, failing], tell, given_up.set)
    assert given_up.is_set() and asked.count("slow") == 1 and asked.count("failing") <= 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@given(st.lists(st.integers(1, 50), max_size=12), st.integers(1, 4))
def test_what_is_dealt_is_dealt_once_and_evenly(sizes: list[int], hands: int) -> None:
    found = dealt(sizes, hands)
    assert sorted(n for hand in found for n in hand) == list(range(len(sizes))) and len(found) == hands
    held = [sum(sizes[n] for n in hand) for hand in found]
    assert max(held) - min(held) <= max(sizes, default=0)
    assert found == dealt(sizes, hands)
