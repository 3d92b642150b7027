"""The slots of a party: what runs where, who waits, and what the end of one means for the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from links_lab import PLAN

from secformer.mpc.dealer.names import RunKey
from secformer.mpc.errors import Desync, PeerLost, ProtocolError
from secformer.mpc.meter import Cost
from secformer.roles.jobs import Job
from secformer.roles.link import Taken
from secformer.roles.messages import Answer
from secformer.roles.slots import Renewed, Slots, Work, reason

SOON, LATE = 0.05, 30.0

KEY = RunKey("name", bytes(32))


class Corrections:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def work(request: str = "a") -> Work:
    job = Job(None, "client", 60.0)  # type: ignore[arg-type]
    return Work(job, Taken(request, "shape", "plan", "live", 0), PLAN, KEY, Corrections())  # type: ignore[arg-type]


class Runs:
    """Runs that last until they are let go. `problems` by request make them fail."""

    def __init__(self, **problems: Exception):
        self.ran: list[tuple[int, str, str]] = []
        self.going, self.ended = threading.Semaphore(0), list[str]()
        self._problems, self._over = problems, threading.Event()

    def __call__(self, slot: int, channel: str, work: Work) -> None:
        self.ran.append((slot, channel, work.taken.request))
        assert self.going.acquire(timeout=LATE)
        if work.taken.request in self._problems:
            raise self._problems[work.taken.request]
        if self._over.is_set():
            raise PeerLost("the link ended")
        work.job.done.set_result(Answer({}, 16, Cost(work.taken.request)))

    def end_link(self, why: str) -> None:
        self.ended.append(why)
        self._over.set()
        for _ in range(9):
            self.going.release()


def used(runs: Runs, use: Callable[[Slots[str]], Any]) -> None:
    with Slots(["near", "far"], runs, runs.end_link) as slots:
        use(slots)
    assert not any(thread.is_alive() for thread in slots._threads)


def test_two_run_at_the_same_time_and_a_third_waits() -> None:
    def use(slots: Slots[str]) -> None:
        first, second, third = work("a"), work("b"), work("c")
        assert slots.free(SOON) == 0
        assert slots.busy == 0
        slots.start(0, first)
        assert slots.free(SOON) == 1 and slots.busy == 1
        slots.start(1, second)
        assert slots.free(SOON) is None and slots.busy == 2
        for slot in (0, 1):
            with pytest.raises(ProtocolError, match=f"slot {slot} is not free"):
                slots.start(slot, third)
        runs.going.release()
        slot = slots.free(LATE)
        assert slot is not None
        slots.start(slot, third)
        runs.going.release(2)
        assert {each.job.done.result(LATE).cost.name for each in (first, second, third)} == {"a", "b", "c"}
        slots.wait_free(0, LATE)
        slots.wait_free(1, LATE)
        assert slots.busy == 0
        assert all(each.corrections.closed for each in (first, second, third))  # type: ignore[union-attr]
        slots.check()

    runs = Runs()
    used(runs, use)
    assert sorted(runs.ran[:2]) == [(0, "near", "a"), (1, "far", "b")] and runs.ran[2][2] == "c"
    assert runs.ended == ["this party is shutting down"]


@pytest.mark.parametrize("slot", [-1, 2, 99])
def test_a_slot_that_does_not_exist(slot: int) -> None:
    def use(slots: Slots[str]) -> None:
        with pytest.raises(Desync, match=f"offers slot {slot}, but there are 2 here"):
            slots.wait_free(slot, SOON)

    runs = Runs()
    used(runs, use)


def test_a_slot_that_stays_busy() -> None:
    def use(slots: Slots[str]) -> None:
        slots.start(1, work())
        with pytest.raises(Desync, match=r"slot 1, which still runs a request here after 0\.05 s"):
            slots.wait_free(1, SOON)

    runs = Runs()
    used(runs, use)


@pytest.mark.parametrize(("problem", "told"), [(Desync("it broke off"), "it broke off"),
                                               (ZeroDivisionError("secret"), "unexpected ZeroDivisionError")])
def test_one_that_fails_ends_all_and_is_raised(problem: Exception, told: str) -> None:
    failing, other = work("bad"), work("good")

    def use(slots: Slots[str]) -> None:
        slots.start(0, failing)
        slots.start(1, other)
        runs.going.release(2)  # either may be the first, so the other one may still be answered
        assert failing.job.done.exception(LATE)
        with pytest.raises(type(problem)):
            slots.wait_free(0, LATE)
        for ask in (slots.check, lambda: slots.free(LATE), lambda: slots.start(0, work())):
            with pytest.raises(type(problem)):
                ask()
        raise PeerLost("the agreeing thread's own end")

    runs = Runs(bad=problem)
    with pytest.raises(type(problem)) as caught:
        used(runs, use)
    assert caught.value is problem and runs.ended[0] == told
    assert "secret" not in str(failing.job.done.exception(LATE)) and told in str(failing.job.done.exception(LATE))
    assert failing.corrections.closed and other.corrections.closed  # type: ignore[union-attr]
    assert other.job.done.done()


def test_an_error_of_the_agreeing_thread_ends_what_runs() -> None:
    running = work()

    def use(slots: Slots[str]) -> None:
        slots.start(0, running)
        raise Desync("the peer is another")

    runs = Runs()
    with pytest.raises(Desync, match="the peer is another"):
        used(runs, use)
    assert runs.ended[0] == "the peer is another"
    assert isinstance(running.job.done.exception(LATE), PeerLost)


def test_a_client_that_left_a_running_request_fails_nothing() -> None:
    """A run gives its answer to a future that nobody reads."""
    def use(slots: Slots[str]) -> None:
        slots.start(0, work())
        runs.going.release()
        slots.wait_free(0, LATE)
        assert not slots.failed

    runs = Runs()
    used(runs, use)


def test_only_errors_that_are_made_to_be_shown_are_told_to_the_peer() -> None:
    assert [reason(e) for e in (Desync("a"), OSError("b"), KeyError("c"))] == ["a", "b", "unexpected KeyError"]


def test_idle_is_told_and_waited_for() -> None:
    started, release = threading.Event(), threading.Event()

    def run(slot: int, channel: str, work: Work) -> None:
        started.set()
        assert release.wait(30)
        work.job.done.set_result(Answer({}, 16, Cost("x")))

    ends: list[str] = []
    with pytest.raises(Renewed), Slots(["a", "b"], run, ends.append) as slots:
        assert slots.idle(0.0)
        slots.start(0, work("x"))
        assert started.wait(30) and not slots.idle(0.01)
        release.set()
        assert slots.idle(30.0)
        raise Renewed
    assert not ends, "a link that is renewed is ended by whoever makes the new one"
