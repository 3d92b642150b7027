"""The request cycle between two threads, without a model: what runs, what does not, and who hears why."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from links_lab import PLAN, notes_pair

from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import Desync, PeerLost, ProtocolError
from secformer.mpc.meter import Cost
from secformer.roles import cycle as module
from secformer.roles.cycle import Cycle
from secformer.roles.jobs import Job, Jobs
from secformer.roles.link import Taken
from secformer.roles.messages import Answer, Half

OTHER_PLAN = Plan(PLAN.kinds, 2, 100)


class Corrections:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Supply:
    """Stands for a party's supply: serials from 0 on, or an error."""

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.moved_on = False
        self.burnt: list[tuple[str, int]] = []
        self.given: list[Corrections] = []

    def last(self) -> dict[str, int]:
        return {"live": len(self.burnt) - 1}

    def take(self, plan: Plan, others: dict[str, int]) -> tuple[str, int, Corrections]:
        if self.problem is not None:
            raise self.problem
        self.given.append(Corrections())
        self.burnt.append(("live", others["live"] + 1))
        return "live", others["live"] + 1, self.given[-1]

    def burn(self, space: str, serial: int) -> None:
        if self.problem is not None:
            raise self.problem
        self.burnt.append((space, serial))

    def outdated(self) -> bool:
        return self.moved_on


class Computer:
    """Stands for a party's engine: the answer to a request is the name of its run."""

    def __init__(self) -> None:
        self.needed, self.ran, self.reported = PLAN, list[tuple[str, str]](), 0
        self.problem: Exception | None = None

    def plan(self, job: Job) -> Plan:
        return self.needed

    def compute(self, link: Any, job: Job, taken: Taken, corrections: Any) -> None:
        if self.problem is not None:
            raise self.problem
        self.ran.append((taken.request, taken.run))
        job.done.set_result(Answer({}, 16, Cost(taken.run)))

    def report_material(self) -> None:
        self.reported += 1


class Party:
    """One side of the cycle, in a thread of its own."""

    def __init__(self, rank: int, link: Any):
        self.jobs, self.supply, self.computer, self.stop = Jobs(9), Supply(), Computer(), threading.Event()
        cycle = Cycle(self.jobs, self.supply, self.computer, self.stop)  # type: ignore[arg-type]
        self._work, self._link = (cycle.follow if rank else cycle.lead), link
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work(self._link)
        except Exception as error:
            self.error = error
        self._link.hang_up()

    def ask(self, request: str, tokens: int = 1) -> Future[Answer]:
        half = Half(request, "model", np.array([tokens]), np.ones((1, tokens), bool), seed=bytes(32))
        return self.jobs.submit(half, "client", 60.0)

    def end(self) -> None:
        self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def parties(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "HEARTBEAT", 0.05)
    monkeypatch.setattr(module, "read_ahead", lambda corrections, plan: corrections)
    leader, follower = (Party(rank, link) for rank, link in enumerate(notes_pair()))
    yield leader, follower
    for party in (leader, follower):
        party.end()


def test_a_request_runs_at_both_parties_under_one_serial(parties: tuple[Party, Party]) -> None:
    for number, request in enumerate(("a", "b")):
        futures = [party.ask(request) for party in parties]
        assert [future.result(30).cost.name for future in futures] == [f"live/{number}"] * 2
    leader, follower = parties
    assert leader.computer.ran == follower.computer.ran == [("a", "live/0"), ("b", "live/1")]
    assert leader.supply.burnt == follower.supply.burnt and all(c.closed for c in follower.supply.given)


def test_a_half_alone_waits_and_holds_nobody_up(parties: tuple[Party, Party]) -> None:
    leader, follower = parties
    alone = leader.ask("alone")
    for party in parties:
        party.ask("both")
    assert leader.ask("later") and follower.ask("later").result(30)
    assert not alone.done() and ("alone", "live/0") not in leader.computer.ran
    assert follower.ask("alone").result(30) and alone.result(30)


def test_material_is_reported_while_nothing_waits(parties: tuple[Party, Party]) -> None:
    leader, follower = parties
    reported = threading.Event()
    follower.computer.report_material = reported.set  # type: ignore[method-assign]
    assert reported.wait(30) and leader.computer.reported == 0


@pytest.mark.parametrize("differ", ["shape", "plan"])
def test_halves_that_differ_do_not_run(parties: tuple[Party, Party], differ: str) -> None:
    leader, follower = parties
    if differ == "plan":
        follower.computer.needed = OTHER_PLAN
    futures = [leader.ask("a"), follower.ask("a", tokens=2 if differ == "shape" else 1)]
    for future in futures:
        assert f"the halves of the request differ: {differ}" in str(future.exception(30))
    assert not leader.computer.ran and not leader.supply.burnt
    leader.ask("b")
    follower.computer.needed = PLAN
    assert follower.ask("b").result(30), "the link goes on"


@pytest.mark.parametrize("rank", [0, 1])
def test_without_material_both_clients_hear_which_party_lacks_it(parties: tuple[Party, Party], rank: int) -> None:
    parties[rank].supply.problem = PeerLost("no material")
    for future in [party.ask("a") for party in parties]:
        error = future.exception(30)
        assert isinstance(error, ProtocolError) and f"party {rank}: no material" in str(error)
    parties[rank].supply.problem = None
    for future in [party.ask("b") for party in parties]:
        assert future.result(30)


def test_a_new_epoch_at_the_dealer_ends_the_link(parties: tuple[Party, Party]) -> None:
    leader, follower = parties
    follower.supply.problem, follower.supply.moved_on = PeerLost("another epoch"), True
    for future in [party.ask("a") for party in parties]:
        assert "another epoch" in str(future.exception(30))
    for party in parties:
        party._thread.join(30)
    assert isinstance(follower.error, Desync) and "new epoch" in str(follower.error)
    assert isinstance(leader.error, PeerLost)


@pytest.mark.parametrize(("problem", "said"), [(PeerLost("broke off"), "broke off"),
                                               (ZeroDivisionError("x"), "unexpected ZeroDivisionError; see the")])
def test_what_goes_wrong_in_a_run_ends_it_and_the_link(parties: tuple[Party, Party], problem: Exception,
                                                       said: str) -> None:
    leader, follower = parties
    follower.computer.problem = leader.computer.problem = problem
    for future in [party.ask("a") for party in parties]:
        error = future.exception(30)
        assert isinstance(error, ProtocolError) and said in str(error)
    follower._thread.join(30)
    assert follower.error is problem and follower.supply.given[0].closed


def test_a_client_that_left_meanwhile(parties: tuple[Party, Party], monkeypatch: pytest.MonkeyPatch) -> None:
    """Party 0 offered the request, but it is gone when party 1 takes it."""
    leader, follower = parties
    monkeypatch.setattr(leader.jobs, "take", lambda request: None)
    leader.ask("a")
    assert "its client has left, or it no longer waits at party 0" in str(follower.ask("a").exception(30))
    leader.jobs.cancel("a")
