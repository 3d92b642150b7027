"""The request cycle between two threads, without a model: what runs, where, what does not, and who hears why."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from links_lab import PLAN, notes_pair
from roles_lab import until

from secformer.mpc.dealer.names import RunKey, fresh_nonce, run_name
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import AuthError, Desync, InputError, PeerLost, ProtocolError
from secformer.mpc.meter import Cost
from secformer.roles import cycle as module
from secformer.roles.cycle import Cycle, Needs
from secformer.roles.failures import AtLimit, ForClients, HalvesDiffer, NoRoom, SessionEnded
from secformer.roles.jobs import Alone, Job, Jobs
from secformer.roles.messages import Answer, Half
from secformer.roles.slots import Renewed, Slots, Work
from secformer.roles.supply import Supplied

LET_GO = threading.Event()
LET_GO.set()
ALONE = 1.0  # seconds that a half may wait alone
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
        self.nonces: list[tuple[bytes, bytes]] = []
        self.erased = 0

    def last(self) -> dict[str, int]:
        return {"live": max((serial for _, serial in self.burnt), default=-1)}

    def take(self, plan: Plan, others: dict[str, int], nonce: bytes, cache: str | None = None,
             kept: Any = (), request: str = "", trace: str = "") -> Supplied:
        if self.problem is not None:
            raise self.problem
        self.given.append(Corrections())
        serial = max(others["live"], self.last()["live"]) + 1
        self.burnt.append(("live", serial))
        mine = fresh_nonce()
        return Supplied("live", serial, mine, self.key("live", serial, (nonce, mine), plan),
                        self.given[-1])  # type: ignore[arg-type]

    def key(self, space: str, serial: int, nonces: tuple[bytes, bytes], plan: Plan) -> RunKey:
        self.nonces.append(nonces)
        return RunKey(run_name("epoch", space, serial, nonces, plan.digest), bytes(32))

    def burn(self, space: str, serial: int, nonces: tuple[bytes, bytes], plan: Plan) -> RunKey:
        if self.problem is not None:
            raise self.problem
        self.burnt.append((space, serial))
        return self.key(space, serial, nonces, plan)

    def erase(self) -> None:
        self.erased = len(self.burnt)

    def outdated(self) -> bool:
        return self.moved_on


class Computer:
    """Stands for a party's engine: the answer to a request is the name of its run. Requests in `held` wait until they
    are let go."""

    def __init__(self) -> None:
        self.needed, self.ran, self.reported = PLAN, list[tuple[str, str]](), 0
        self.names: list[str] = []
        self.rested = threading.Event()
        self.slots: dict[str, int] = {}
        self.held: dict[str, threading.Event] = {}
        self.problem: Exception | None = None
        self.renewing = self.invalid = False

    def needs(self, job: Job) -> Needs:
        return Needs(self.needed)

    def kept(self) -> list[str]:
        return []

    def begin(self, work: Work) -> None: ...

    def refused(self, job: Job, problem: str) -> None: ...

    def renewal(self) -> bool:
        if self.invalid:
            raise AuthError("the certificate of the other party was revoked")
        return self.renewing

    def rest(self) -> None:
        self.rested.set()

    def compute(self, slot: int, channel: str, work: Work) -> None:
        if self.problem is not None:
            raise self.problem
        taken = work.taken
        self.ran.append((taken.request, taken.run))
        self.names.append(work.key.name)
        self.slots[taken.request] = slot
        assert self.held.get(taken.request, LET_GO).wait(30)
        work.job.done.set_result(Answer({}, 16, Cost(taken.run)))

    def report_material(self) -> None:
        self.reported += 1


class Party:
    """One side of the cycle, in a thread of its own."""

    def __init__(self, rank: int, link: Any):
        self.jobs, self.supply, self.computer, self.stop = Jobs(999, ALONE), Supply(), Computer(), threading.Event()
        cycle = Cycle(self.jobs, self.supply, self.computer, self.stop, 30.0)  # type: ignore[arg-type]
        self._work = cycle.follow if rank else cycle.lead
        self.go_on(link)

    def go_on(self, link: Any) -> None:
        """Begins with a new link."""
        self._link, self.ended = link, ""
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with Slots(["first", "second"], self.computer.compute, self._end_link) as slots:
                self._work(self._link, slots)
        except Exception as error:
            self.error = error

    def _end_link(self, why: str) -> None:
        self.ended = why
        self._link.hang_up()
        self.jobs.wake()

    def ask(self, request: str, tokens: int = 1, client: str = "client") -> Future[Answer]:
        half = Half(request, "model", np.array([tokens]), np.ones((1, tokens), bool), seed=bytes(32))
        return self.jobs.submit(half, client, 60.0)

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
    assert leader.computer.names == follower.computer.names and len(set(leader.computer.names)) == 2
    assert leader.supply.nonces == follower.supply.nonces
    assert len({nonce for both in leader.supply.nonces for nonce in both}) == 4
    until(lambda: all(party.supply.erased == 2 for party in parties))


def test_a_second_request_runs_beside_one_that_lasts(parties: tuple[Party, Party]) -> None:
    """In the same slot at both parties, with the next serial; a third waits for a slot."""
    leader, follower = parties
    for party in parties:
        party.computer.held = {"a": threading.Event(), "b": threading.Event()}
    first, second, third = ([party.ask(request) for party in parties] for request in ("a", "b", "c"))
    until(lambda: all(len(party.computer.ran) == 2 for party in parties))
    assert leader.computer.ran == follower.computer.ran or set(leader.computer.ran) == set(follower.computer.ran)
    assert leader.supply.burnt == follower.supply.burnt == [("live", 0), ("live", 1)]
    assert sorted(leader.computer.slots.values()) == [0, 1] and leader.computer.slots == follower.computer.slots
    assert leader.jobs.waiting() == 1 and not any(future.done() for future in first + second + third)
    for party in parties:
        party.computer.held["b"].set()
    assert [future.result(30).cost.name for future in second + third] == ["live/1"] * 2 + ["live/2"] * 2
    assert leader.computer.slots["c"] == leader.computer.slots["b"] and not any(future.done() for future in first)
    for party in parties:
        party.computer.held["a"].set()
    assert [future.result(30).cost.name for future in first] == ["live/0"] * 2


def test_party_1_may_be_the_last_to_end_a_run(parties: tuple[Party, Party]) -> None:
    """Party 0 offers a slot that is free there; party 1 waits until it is free here too."""
    leader, follower = parties
    follower.computer.held = {"a": threading.Event(), "b": threading.Event()}
    answers = [[party.ask(request) for party in parties] for request in "abcd"]
    assert answers[0][0].result(30) and answers[1][0].result(30)
    until(lambda: len(follower.computer.ran) == 2)
    for event in follower.computer.held.values():
        event.set()
    assert all(future.result(30) for both in answers for future in both)
    assert leader.computer.slots == follower.computer.slots


@settings(max_examples=15, deadline=None)
@given(order=st.lists(st.sampled_from(["run", "fail to supply", "differ"]), min_size=1, max_size=12),
       seed=st.integers(0, 99))
def test_no_two_runs_have_a_name_in_common(order: list[str], seed: int) -> None:
    """Whatever runs beside what and whatever does not run: serials rise, and each names one run at both parties."""
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HEARTBEAT", 0.05)
        patch.setattr(module, "read_ahead", lambda corrections, plan: corrections)
        leader, follower = parties = tuple(Party(rank, link) for rank, link in enumerate(notes_pair()))
        real = follower.supply.take

        def take(*args: Any) -> Any:
            if "fail to supply" in order and rng.random() < 0.3:
                raise PeerLost("no material")
            return real(*args)

        follower.supply.take = take  # type: ignore[method-assign]
        futures = []
        for number, what in enumerate(order):
            futures += [leader.ask(f"r{number}"), follower.ask(f"r{number}", tokens=2 if what == "differ" else 1)]
        for future in futures:
            future.exception(30)
        for party in parties:
            party.end()
    for party in parties:
        names = [run for _, run in party.computer.ran]
        assert len(set(names)) == len(names)
        assert party.supply.burnt == sorted(set(party.supply.burnt))
    assert set(leader.computer.ran) == set(follower.computer.ran) and {*leader.supply.burnt} <= {*follower.supply.burnt}


def test_a_half_alone_waits_and_holds_nobody_up(parties: tuple[Party, Party]) -> None:
    leader, follower = parties
    alone = leader.ask("alone")
    for party in parties:
        party.ask("both")
    assert leader.ask("later") and follower.ask("later").result(30)
    assert not alone.done() and ("alone", "live/0") not in leader.computer.ran
    assert follower.ask("alone").result(30) and alone.result(30)


def test_what_is_due_is_done_while_nothing_waits(parties: tuple[Party, Party]) -> None:
    assert all(party.computer.rested.wait(30) for party in parties) and not parties[0].computer.reported


@pytest.mark.parametrize("differ", ["shape", "plan"])
def test_halves_that_differ_do_not_run(parties: tuple[Party, Party], differ: str) -> None:
    leader, follower = parties
    if differ == "plan":
        follower.computer.needed = OTHER_PLAN
    futures = [leader.ask("a"), follower.ask("a", tokens=2 if differ == "shape" else 1)]
    for future in futures:
        error = future.exception(30)
        assert f"the halves of the request differ: {differ}" in str(error) and isinstance(error, HalvesDiffer)
    assert not leader.computer.ran and not leader.supply.burnt
    leader.ask("b")
    follower.computer.needed = PLAN
    assert follower.ask("b").result(30), "the link goes on"


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", [AtLimit, NoRoom, SessionEnded, InputError, ForClients])
def test_both_clients_learn_what_kind_of_refusal_it_is(parties: tuple[Party, Party], rank: int,
                                                       kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever party finds it."""
    def needs(job: Job) -> Needs:
        raise kind("so and so")

    with monkeypatch.context() as patch:
        patch.setattr(parties[rank].computer, "needs", needs)
        for future in [party.ask("a") for party in parties]:
            error = future.exception(30)
            assert type(error) is kind and str(error) == f"party {rank}: so and so"
    for future in [party.ask("b") for party in parties]:
        assert future.result(30), "the link goes on"


@pytest.mark.parametrize("checked", ["both parties", "party 0 alone"])
def test_halves_of_two_clients_are_refused_at_both_parties(parties: tuple[Party, Party], checked: str,
                                                           monkeypatch: pytest.MonkeyPatch,
                                                           caplog: pytest.LogCaptureFixture) -> None:
    """Neither client learns the other's name. Even if party 1 does not look, party 0 does."""
    leader, follower = parties
    if checked == "party 0 alone":
        monkeypatch.setattr(leader.jobs, "clients", lambda ids: dict.fromkeys(ids, "mallory"))
    with caplog.at_level(logging.WARNING, "secformer"):
        futures = [leader.ask("a", client="alice"), follower.ask("a", client="mallory")]
        for future in futures:
            error = future.exception(30)
            assert isinstance(error, ProtocolError) and "come from two clients" in str(error)
            assert "alice" not in str(error) and "mallory" not in str(error)
    assert not leader.computer.ran and not follower.computer.ran and not leader.supply.burnt
    told = [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "halves of two clients"]
    assert told and {"alice", "mallory"} == {told[0]["client"], told[0]["client at the other party"]}
    monkeypatch.undo()
    monkeypatch.setattr(module, "HEARTBEAT", 0.05)
    monkeypatch.setattr(module, "read_ahead", lambda corrections, plan: corrections)
    assert leader.ask("b", client="mallory") and follower.ask("b", client="mallory").result(30), "the link goes on"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_half_alone_is_dropped_soon_and_a_whole_request_waits(parties: tuple[Party, Party], rank: int) -> None:
    """Both slots are busy for longer than a half may wait alone: what both parties have waits on."""
    for party in parties:
        party.computer.held = {"a": threading.Event(), "b": threading.Event()}
    running = [party.ask(request) for request in "ab" for party in parties]
    until(lambda: all(len(party.computer.ran) == 2 for party in parties))
    alone, waiting = parties[rank].ask("alone"), [party.ask("c") for party in parties]
    with parties[1 - rank].jobs.arriving("slow"):  # its other half is under way, over a thin line
        slow = parties[rank].ask("slow")
        error = alone.exception(30)
        assert isinstance(error, Alone) and "did not get its half of the request within 1 s" in str(error)
        assert not slow.done() and not any(future.done() for future in waiting)
    assert isinstance(slow.exception(30), Alone) and not any(future.done() for future in waiting + running)
    for party in parties:
        for event in party.computer.held.values():
            event.set()
    assert all(future.result(30) for future in running + waiting)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_link_is_renewed_when_nothing_runs(parties: tuple[Party, Party], rank: int) -> None:
    """Whichever party asks for it; no request is lost, and none begins meanwhile."""
    leader, follower = parties
    for party in parties:
        party.computer.held = {"a": threading.Event()}
    running = [party.ask("a") for party in parties]
    until(lambda: all(len(party.computer.ran) == 1 for party in parties))
    parties[rank].computer.renewing = True
    until(lambda: leader.computer.rested.is_set())
    time.sleep(0.2)  # until party 0 has heard of it
    waiting = [party.ask("b") for party in parties]
    time.sleep(0.2)
    assert leader.error is None and follower.error is None and not any(future.done() for future in running + waiting)
    for party in parties:
        party.computer.held["a"].set()
    assert all(future.result(30) for future in running)
    for party in parties:
        party._thread.join(30)
        assert isinstance(party.error, Renewed) and not party.ended, "whoever uses the slots ends the link"
    assert not any(future.done() for future in waiting) and [party.jobs.waiting() for party in parties] == [1, 1]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_link_is_renewed_under_a_steady_load(parties: tuple[Party, Party], rank: int) -> None:
    """There is always a request that waits, so party 1 takes one with every answer."""
    for number in range(400):
        for party in parties:
            party.ask(f"r{number}")
    parties[rank].computer.renewing = True
    for party in parties:
        party._thread.join(30)
        assert isinstance(party.error, Renewed)
    assert parties[0].jobs.waiting() == parties[1].jobs.waiting() > 0


@pytest.mark.parametrize("rank", [0, 1])
def test_a_link_ends_when_the_other_partys_certificate_does_not_hold(parties: tuple[Party, Party], rank: int) -> None:
    parties[rank].computer.invalid = True
    parties[rank]._thread.join(30)
    assert isinstance(parties[rank].error, AuthError) and "revoked" in str(parties[rank].error)


@pytest.mark.parametrize("rank", [0, 1])
def test_without_material_both_clients_hear_which_party_lacks_it(parties: tuple[Party, Party], rank: int) -> None:
    parties[rank].supply.problem = ForClients("no material")
    for future in [party.ask("a") for party in parties]:
        error = future.exception(30)
        assert isinstance(error, ProtocolError) and f"party {rank}: no material" in str(error)
    parties[rank].supply.problem = None
    for future in [party.ask("b") for party in parties]:
        assert future.result(30)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_refuses_the_request_and_keeps_the_link(parties: tuple[Party, Party], rank: int) -> None:
    parties[rank].supply.problem = OSError(28, "No space left on device", "/srv/state/serials.log")
    for future in [party.ask("a") for party in parties]:
        said = str(future.exception(30))
        assert f"party {rank}: something unexpected happened" in said and "/srv" not in said
    parties[rank].supply.problem = None
    for future in [party.ask("b") for party in parties]:
        assert future.result(30)


def test_in_a_new_epoch_requests_wait_for_a_new_link(parties: tuple[Party, Party]) -> None:
    """The request that the dealer refused runs first of all after that, and none is lost. One that runs goes on."""
    for party in parties:
        party.computer.held = {"runs": threading.Event()}
    running = [party.ask("runs") for party in parties]
    until(lambda: all(party.computer.ran for party in parties))
    parties[1].supply.problem, parties[1].supply.moved_on = Desync("the model's epoch is another one"), True
    waiting = [party.ask(request) for request in ("a", "b") for party in parties]
    until(lambda: parties[1].computer.reported >= 2)  # the first one was refused
    assert [party.jobs.waiting() for party in parties] == [2, 2] and not any(f.done() for f in running + waiting)
    assert not any(party.error for party in parties), "the link stays while something runs"
    for party in parties:
        party.computer.held["runs"].set()
    for party in parties:
        party._thread.join(30)
        assert isinstance(party.error, Renewed)
    assert all(future.result(30) for future in running) and not any(future.done() for future in waiting)
    parties[1].supply.problem, parties[1].supply.moved_on = None, False
    for party, link in zip(parties, notes_pair(), strict=True):
        party.go_on(link)
    assert all(future.result(30) for future in waiting)
    assert [request for request, _ in parties[0].computer.ran] == ["runs", "a", "b"]


def test_a_desync_in_the_same_epoch_ends_the_request(parties: tuple[Party, Party]) -> None:
    parties[1].supply.problem = Desync("the dealer already serves as many requests as it may")
    for future in [party.ask("a") for party in parties]:
        assert isinstance(future.exception(30), ProtocolError)
    assert not any(party.error for party in parties)


@pytest.mark.parametrize(("problem", "said"), [(PeerLost("broke off"), "broke off"),
                                               (ZeroDivisionError("x"), "unexpected ZeroDivisionError; see the")])
def test_what_goes_wrong_in_a_run_ends_it_and_the_link(parties: tuple[Party, Party], problem: Exception,
                                                       said: str) -> None:
    leader, follower = parties
    follower.computer.problem = leader.computer.problem = problem
    for future in [party.ask("a") for party in parties]:
        error = future.exception(30)
        assert isinstance(error, ProtocolError) and said in str(error)
    for party in parties:
        party._thread.join(30)
    # a party that heard of the other's end before its own run failed tells of that, unless its own was unexpected
    assert {type(party.error) for party in parties} <= {type(problem), PeerLost} and follower.supply.given[0].closed
    assert isinstance(problem, PeerLost) or all(party.error is problem for party in parties)


def test_a_client_that_left_meanwhile(parties: tuple[Party, Party], monkeypatch: pytest.MonkeyPatch) -> None:
    """Party 0 offered the request, but it is gone when party 1 takes it."""
    leader, follower = parties
    monkeypatch.setattr(leader.jobs, "take", lambda request: None)
    leader.ask("a")
    assert "its client has left, or it no longer waits at party 0" in str(follower.ask("a").exception(30))
    leader.jobs.cancel("a")
