"""The queue of requests: clients in turn, deadlines, leaving, duplicates, threads."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import CancelledError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.roles.jobs import Alone, DuplicateRequest, Expired, Jobs, QueueFull
from secformer.roles.messages import Half


def half(request: str) -> Half:
    return Half(request, "model", np.array([1]), np.ones((1, 1), bool), seed=bytes(32))


@given(clients=st.lists(st.sampled_from("abcd"), max_size=30))
def test_clients_take_turns(clients: list[str]) -> None:
    """However requests come, nobody is served twice more than another who waits; one's own keep their order."""
    jobs = Jobs(100)
    for number, client in enumerate(clients):
        jobs.submit(half(f"{client}{number}"), client, 60.0)
    served: list[str] = []
    while ids := jobs.candidates(32):
        job = jobs.take(ids[0])
        assert job is not None
        served.append(ids[0])
        waiting = {client for client in set(clients) if any(f"{client}{n}" not in served for n, c in enumerate(clients)
                                                            if c == client)}
        counts = Counter(i[0] for i in served)
        if waiting:
            assert max(counts.values()) - min(counts[c] for c in waiting) <= 1
    for client in set(clients):
        mine = [int(i[1:]) for i in served if i[0] == client]
        assert mine == sorted(mine) and len(mine) == clients.count(client)
    assert jobs.waiting() == 0


def test_an_id_is_known_after_its_end() -> None:
    jobs = Jobs(2)
    jobs.submit(half("x"), "a", 60.0)
    with pytest.raises(DuplicateRequest):
        jobs.submit(half("x"), "b", 60.0)
    assert jobs.take("x") is not None
    with pytest.raises(DuplicateRequest):
        jobs.submit(half("x"), "a", 60.0)


def test_a_full_queue_refuses_and_forgets() -> None:
    jobs = Jobs(1)
    jobs.submit(half("x"), "a", 60.0)
    with pytest.raises(QueueFull):
        jobs.submit(half("y"), "a", 60.0)
    assert jobs.take("x") is not None
    jobs.submit(half("y"), "a", 60.0)  # a refused id may come again


def test_a_request_that_was_given_up_may_pass_its_deadline() -> None:
    jobs = Jobs(9)
    assert jobs.submit(half("late"), "a", -1.0).cancel()
    assert jobs.candidates(9) == [] and jobs.waiting() == 0


def test_a_request_past_its_deadline_ends() -> None:
    jobs = Jobs(5)
    late, early = jobs.submit(half("x"), "a", 0.0), jobs.submit(half("y"), "a", 60.0)
    assert jobs.candidates(5) == ["y"]
    assert isinstance(late.exception(timeout=1), Expired) and not early.done()


def test_a_client_that_leaves() -> None:
    jobs = Jobs(5)
    future = jobs.submit(half("x"), "a", 60.0)
    jobs.cancel("x")
    jobs.cancel("never came")
    assert jobs.take("x") is None and jobs.candidates(5) == []
    with pytest.raises(CancelledError):
        future.result(timeout=1)
    running = jobs.submit(half("y"), "a", 60.0)
    assert jobs.take("y") is not None
    jobs.cancel("y")  # it runs already
    assert running.running()


def test_waiting_for_requests_wakes_up() -> None:
    jobs = Jobs(5)
    found: list[list[str]] = []
    first: list[str | None] = []
    threads = [threading.Thread(target=lambda: found.append(jobs.candidates(5, patience=30.0))),
               threading.Thread(target=lambda: first.append(jobs.first_of(["nobody", "x"], patience=30.0)))]
    for thread in threads:
        thread.start()
    jobs.submit(half("x"), "a", 60.0)
    for thread in threads:
        thread.join(30)
    assert found == [["x"]] and first == ["x"]
    assert jobs.first_of([], patience=30.0) is None and jobs.candidates(0) == []


def test_many_threads_lose_nothing() -> None:
    jobs = Jobs(10_000)
    taken: list[str] = []

    def send(client: str) -> None:
        for i in range(100):
            jobs.submit(half(f"{client}{i}"), client, 60.0)

    def serve() -> None:
        while len(taken) < 400:
            for request in jobs.candidates(8, patience=0.01):
                if jobs.take(request) is not None:
                    taken.append(request)

    threads = [*(threading.Thread(target=send, args=(c,)) for c in "abcd"), *(threading.Thread(target=serve)
                                                                             for _ in range(3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(taken) == len(set(taken)) == 400 and jobs.waiting() == 0


def test_who_waits_for_candidates_may_be_told_that_it_is_enough() -> None:
    """The cycle's thread waits here while a run fails elsewhere."""
    jobs, enough, found = Jobs(9), threading.Event(), list[list[str]]()
    waiting = threading.Thread(target=lambda: found.append(jobs.candidates(32, 60.0, enough.is_set)))
    waiting.start()
    jobs.wake()  # not yet enough
    waiting.join(0.05)
    assert waiting.is_alive()
    enough.set()
    jobs.wake()
    waiting.join(30)
    assert not waiting.is_alive() and found == [[]]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_half_whose_other_half_is_unseen_ends_soon() -> None:
    clock = Clock()
    jobs = Jobs(9, 10.0, clock)
    lone, both = jobs.submit(half("x"), "a", 600.0), jobs.submit(half("y"), "a", 600.0)
    clock.now = 9.9
    jobs.compare(["y", "of others"])
    assert not lone.done() and jobs.alone() == 1 and jobs.here() == ["x", "y"]
    clock.now = 10.0
    late = jobs.submit(half("z"), "b", 600.0)
    jobs.compare(["y"])
    error = lone.exception(timeout=1)
    assert isinstance(error, Alone) and "did not get its half of the request within 10 s; send both" in str(error)
    assert not both.done() and not late.done() and jobs.candidates(9) == ["y", "z"] and jobs.alone() == 1
    clock.now = 599.0
    jobs.compare(["y"])
    assert not both.done() and isinstance(late.exception(timeout=1), Alone)
    jobs.compare([])  # its other half has gone
    assert isinstance(both.exception(timeout=1), Alone) and jobs.waiting() == jobs.alone() == 0


def test_without_a_link_nobody_can_know_what_is_alone() -> None:
    clock = Clock()
    jobs = Jobs(9, 10.0, clock)
    lone = jobs.submit(half("x"), "a", 600.0)
    clock.now = 100.0
    jobs.linked()
    jobs.compare([])
    assert not lone.done()
    clock.now = 110.0
    jobs.compare([])
    assert isinstance(lone.exception(timeout=1), Alone)


def test_halves_that_arrive_are_here_but_cannot_be_taken() -> None:
    jobs = Jobs(9)
    with jobs.arriving("x"), jobs.arriving("x"), jobs.arriving("y"):
        assert sorted(jobs.here()) == ["x", "y"] and jobs.candidates(9) == [] and jobs.take("x") is None
    assert jobs.here() == []


def test_who_sent_what() -> None:
    jobs = Jobs(9)
    for request, client in (("x", "a"), ("y", "b"), ("z", "a")):
        jobs.submit(half(request), client, 60.0)
    assert list(jobs.clients(jobs.candidates(9)).items()) == [("x", "a"), ("y", "b"), ("z", "a")]
    jobs.cancel("y")
    assert jobs.clients(["y", "z"]) == {"z": "a"}


def test_a_request_that_is_put_back_comes_first_and_can_end_in_every_way() -> None:
    clock = Clock()
    jobs = Jobs(9, 10.0, clock)
    futures = {request: jobs.submit(half(request), client, 60.0) for request, client in (
        ("x", "a"), ("y", "b"), ("z", "a"))}
    for _ in range(2):  # as often as an epoch ends
        job = jobs.take("x")
        assert job is not None and sorted(jobs.candidates(9)) == ["y", "z"]
        jobs.put_back(job)
        assert jobs.candidates(9)[0] == "x" and jobs.waiting() == 3 and sorted(jobs.here()) == ["x", "y", "z"]
    jobs.cancel("x")
    assert jobs.waiting() == 2 and jobs.take("x") is None
    for request in ("y", "z"):
        job = jobs.take(request)
        assert job is not None
        jobs.put_back(job)
    clock.now = 10.0
    jobs.compare(["z"])
    assert isinstance(futures["y"].exception(timeout=1), Alone)
    clock.now = 60.0
    assert jobs.candidates(9) == [] and isinstance(futures["z"].exception(timeout=1), Expired)
