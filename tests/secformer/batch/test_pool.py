"""Rows that wait: which of them make a call, in which order, and what comes back."""

from __future__ import annotations

from secformer.batch.pool import SUSPECT, Item, Pool
from secformer.batch.tasks import Unit
from secformer.models.data.batch import FEW


def items(*lengths: int, chunk: int = 0) -> list[Item]:
    return [Item(chunk, place, Unit(length)) for place, length in enumerate(lengths)]


def drawn(pool: Pool, room: int) -> list[list[int]]:
    calls = []
    while found := pool.take(room):
        calls.append([item.unit.length for item in found])
    return calls


def test_calls_hold_neighbours_in_length_and_every_row_once() -> None:
    pool, given = Pool(), items(*(5 + 7 * i % 120 for i in range(300)))
    pool.add(given)
    seen: list[Item] = []
    while found := pool.take(256):
        lengths = [item.unit.length for item in found]
        assert len(found) == 1 or max(lengths) * len(found) <= 256
        assert max(lengths) <= min(lengths) + FEW or 10 * max(lengths) <= 11 * min(lengths)
        seen += found
    assert sorted(seen, key=lambda item: item.order) == given and pool.positions == 0 and not pool


def test_the_first_row_is_in_the_next_call() -> None:
    pool = Pool()
    pool.add(items(100, 10, 10, 10))
    pool.add(items(10, 10, chunk=1))
    assert drawn(pool, 40) == [[100], [10, 10, 10, 10], [10]]


def test_a_row_longer_than_the_room_goes_alone() -> None:
    pool = Pool()
    pool.add(items(50, 50))
    assert drawn(pool, 10) == [[50], [50]]


def test_rows_that_come_back_are_first() -> None:
    pool = Pool()
    pool.add(items(10, 10, 10))
    taken = pool.take(20)
    pool.give_back(taken)
    assert pool.positions == 30 and [item.place for item in pool.take(20)] == [0, 1]


def test_halves_are_asked_without_others() -> None:
    pool = Pool()
    pool.add(items(10, 10, 10, 10, 10, 10))
    pool.give_back(pool.take(50), halved=True)
    assert [[item.place for item in pool.take(100)] for _ in range(3)] == [[0, 1], [2, 3, 4], [5]]
    (single,) = items(10)
    pool.give_back([single], halved=True)
    assert pool.take(100) == [single] and not pool


def test_rows_that_cells_failed_on_are_asked_alone() -> None:
    pool, given = Pool(), items(10, 10, 10)
    for item in given:
        item.failures = SUSPECT - 1
    given[1].failures = SUSPECT
    pool.give_back(given)
    assert [[item.place for item in pool.take(100)] for _ in range(2)] == [[1], [0, 2]]
