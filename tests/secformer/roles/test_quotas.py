"""What clients may hold: limits for one, room for the next, and nothing is held when all have left."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.roles.quotas import MEGABYTE, Crowded, OverQuota, Place, Quotas


def quotas() -> Quotas:
    return Quotas(requests=(3, 100), mb=(10, 40))


def test_one_client_has_so_many_requests() -> None:
    all_of_it = quotas()
    places = [all_of_it.enter("a") for _ in range(3)]
    with pytest.raises(OverQuota, match="one client may have 3 requests here at the same time, and this one would have "
                                        "more; send the request again when others"):
        all_of_it.enter("a")
    with all_of_it.enter("b"), places[0]:
        pass
    with all_of_it.enter("a"):
        pass


def test_bytes_are_counted_while_they_arrive() -> None:
    all_of_it = quotas()
    with all_of_it.enter("a") as first, all_of_it.enter("a") as second:
        first.hold(6 * MEGABYTE)
        second.hold(4 * MEGABYTE)
        with pytest.raises(OverQuota, match="one client may have 10 MB of requests here at the same time"):
            second.hold(1)
        with all_of_it.enter("b") as other:
            other.hold(10 * MEGABYTE)
        assert all_of_it.held == 10 * MEGABYTE
    assert all_of_it.held == 0


def test_a_place_is_held_until_its_job_is_done() -> None:
    all_of_it, job = quotas(), Future[int]()
    with all_of_it.enter("a") as place:
        place.hold(5)
        place.until(job)
    assert all_of_it.held == 5, "the client has left, but the request runs"
    job.set_result(1)
    assert all_of_it.held == 0
    done = Future[int]()
    done.cancel()
    with all_of_it.enter("a") as place:
        place.until(done)
        place.hold(5)
    assert all_of_it.held == 0


@given(greedy=st.integers(1, 30), piece=st.integers(1, 10))
def test_however_many_are_greedy_the_next_one_finds_room(greedy: int, piece: int) -> None:
    """k clients that take all they get, piece by piece in turn, leave about a part of k + 1."""
    all_of_it, open_ = Quotas(requests=(5, 1000), mb=(20, 40)), list[Place]()
    for client in range(greedy):
        open_.append(all_of_it.enter(str(client)))
    taking = set(range(greedy))
    while taking:
        for client in sorted(taking):
            try:
                open_[client].hold(piece * MEGABYTE // 10)
            except (OverQuota, Crowded):
                taking.discard(client)
    with all_of_it.enter("next") as place:
        place.hold(40 * MEGABYTE // (greedy + 2) - piece * MEGABYTE // 10)
        with pytest.raises((OverQuota, Crowded)):
            place.hold(20 * MEGABYTE)
    for each in open_:
        each._drop()
    assert all_of_it.held == 0 and not all_of_it._bytes._held and not all_of_it._requests._held


def test_crowds_are_not_told_what_others_hold() -> None:
    crowd = Quotas(requests=(9, 9), mb=(20, 40))
    with crowd.enter("a") as a, crowd.enter("b") as b, crowd.enter("c") as c:
        a.hold(19 * MEGABYTE)
        b.hold(10 * MEGABYTE)
        with pytest.raises(Crowded, match="all clients together may have 40 MB of requests here at the same time"):
            c.hold(12 * MEGABYTE)


def test_many_threads_lose_nothing() -> None:
    all_of_it = Quotas(requests=(8, 64), mb=(10, 40))

    def work(client: str) -> None:
        for _ in range(300):
            with all_of_it.enter(client) as place:
                place.hold(100)

    threads = [threading.Thread(target=work, args=(client,)) for client in "aabbccdd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all_of_it.held == 0 and all_of_it._requests.sum == 0
