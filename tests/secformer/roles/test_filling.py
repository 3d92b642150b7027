"""Party 1's filler: what it asks for, in which order, below which limit, and what it does when that fails."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from roles_lab import until

from secformer.mpc.dealer.names import NO_NONCE, STORED
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.products import Hadamard
from secformer.mpc.dealer.shelved import run_bytes
from secformer.mpc.dealer.store import AHEAD, Store, file_bytes, writing
from secformer.mpc.errors import PeerLost, StoreError
from secformer.roles import filling as module
from secformer.roles.epochs import Epoch
from secformer.roles.filling import Filler
from secformer.roles.messages import Half
from secformer.roles.precedence import Precedence
from secformer.roles.settings import PartySettings, load_party

PLAN = Plan(tuple(Hadamard(((size,),), (48,), ((0, 0, 48),), (None,)) for size in (400, 500)), 3, 100)
EPOCH = Epoch("0f" * 16, {1: bytes(32)})
OTHER = Plan((*PLAN.kinds, *PLAN.kinds), 1, 1)  # its runs are twice as long
TWIN = Plan(PLAN.kinds, PLAN.rounds + 1, PLAN.bytes)  # and this one's as long
ONE, TWO = file_bytes(PLAN, 1), file_bytes(PLAN, 2)


def half(length: int) -> Half:
    return Half("00", "11", np.array([length]), np.ones((1, length), bool))


class Corrections:
    """Zeros, as many as are asked for."""

    def __init__(self, dealer: Dealer):
        self._dealer = dealer

    def receive(self, tag: Any, nbytes: int) -> np.ndarray:
        self._dealer.received += 1
        if self._dealer.received == self._dealer.ends_after:
            self._dealer.at_end()
        return np.zeros(nbytes, np.uint8)

    def close(self) -> None:
        self._dealer.open -= 1


class Dealer:
    """Stands for `DealerClient`, and for what makes one."""

    def __init__(self) -> None:
        self.asked: list[tuple[Plan, int]] = []
        self.serial, self.away, self.open, self.received, self.ends_after = 0, False, 0, 0, -1
        self.at_end: Any = None

    def __call__(self) -> Dealer:
        self.open += 1
        return self

    def deal(self, epoch: Epoch, space: str, after: int, plan: Plan, *, nonces: tuple[bytes, bytes], count: int,
             patience: float) -> tuple[int, Corrections]:
        if self.away:
            raise PeerLost("the dealer does not answer")
        assert epoch == EPOCH and space == STORED and nonces[0] == NO_NONCE and after < self.serial
        self.asked.append((plan, count))
        self.serial, first = self.serial + count, self.serial
        self.open += 1
        return first, Corrections(self)

    def close(self) -> None:
        self.open -= 1


class Reports:
    def __init__(self) -> None:
        self.held, self.runs, self.most, self.stored, self.failures = 0, 0, 0, 0, list[str]()

    def ahead(self, nbytes: int, runs: int) -> None:
        self.held, self.runs, self.most = nbytes, runs, max(self.most, nbytes)

    def filled(self, runs: int) -> None:
        self.stored += runs

    def not_filled(self, kind: str) -> None:
        self.failures.append(kind)


@pytest.fixture
def settings(roles: Path, tmp_path: Path) -> PartySettings:
    return replace(load_party(roles / "party1" / "party1.toml"), state=tmp_path / "state", store=tmp_path / "store",
                   ahead_mb=1, ahead_requests=100)


class Fixed:
    """A filler, and what it has to do with."""

    def __init__(self, settings: PartySettings, limit: int):
        self.dealer, self.reports, self.dealing, self.running = Dealer(), Reports(), Precedence(), Precedence()
        self.waiting: list[Half] = []
        self.filler = Filler(settings, lambda: EPOCH, self.dealer, self.dealing, self.running,  # type: ignore[arg-type]
                             lambda: self.waiting, self.reports)
        self.filler._limit = limit
        self.store = Store(settings.store, bytes(32), EPOCH.name)

    def want(self, plan: Plan, times: int = 2, length: int = 3) -> None:
        for _ in range(times):
            self.filler.note(plan, half(length))

    def fill(self) -> list[tuple[Plan, int]]:
        """What is asked for now."""
        self.dealer.asked.clear()
        self.filler._fill()
        assert self.dealer.open == 0 and self.store.nbytes() <= self.filler._limit
        return list(self.dealer.asked)


@pytest.fixture
def fixed(settings: PartySettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(module, "GAP", 0.0)
    monkeypatch.setattr(module, "BEAT", 0.01)
    made: list[Fixed] = []

    def make(limit: int = 1_000_000, **changes: Any) -> Fixed:
        made.append(Fixed(replace(settings, **changes), limit))
        return made[-1]

    yield make
    for each in made:
        each.filler.close()


@pytest.mark.parametrize(("limit", "runs"), [(ONE - 1, 0), (ONE, 1), (2 * ONE - 1, 1), (2 * ONE, 2)])
def test_the_limit_holds_to_the_byte(fixed: Any, limit: int, runs: int) -> None:
    each = fixed(limit)
    each.want(PLAN)
    assert sum(count for _, count in each.fill()) == runs == each.store.left().get(PLAN.digest, 0)
    assert each.store.nbytes() == runs * ONE == each.reports.held and each.reports.runs == runs
    assert each.fill() == []


def test_nothing_is_made_for_what_came_once_and_no_more_than_so_many(fixed: Any) -> None:
    each = fixed(ahead_requests=3)
    each.want(PLAN, 1)
    assert each.fill() == []
    each.want(PLAN, 1)
    assert sum(count for _, count in each.fill()) == 3 == each.reports.stored
    found = each.store.take(PLAN)
    assert found is not None
    found.corrections.close()
    assert each.fill() == [(PLAN, 1)]


def test_pieces_are_small_where_the_limit_is(fixed: Any) -> None:
    """A file leaves the disk with its last run: a store of one file would be used up before it is filled again."""
    each = fixed(module.PARTS * TWO)
    each.want(PLAN)
    assert [count for _, count in each.fill()][:3] == [2, 2, 2] and len(list(each.store.folder.glob("*.store"))) >= 8


def test_what_is_used_up_first_is_made_first(fixed: Any) -> None:
    each = fixed(4 * ONE)
    each.want(PLAN, 2)
    each.want(TWIN, 5)
    assert each.fill() == [(TWIN, 1), (TWIN, 1), (PLAN, 1), (TWIN, 1)]


def test_what_waits_is_wanted_more(fixed: Any) -> None:
    each = fixed(ONE)
    each.want(PLAN, 3, length=3)
    each.want(TWIN, 2, length=4)
    each.waiting = [half(4)] * 2
    assert each.fill() == [(TWIN, 1)]


def test_a_plan_that_is_new_in_demand_gets_room(fixed: Any) -> None:
    each = fixed(8 * ONE)
    each.want(PLAN, 2)
    each.fill()
    assert each.store.left() == {PLAN.digest: 8}
    each.want(TWIN, 2)
    each.fill()
    left = each.store.left()
    assert left[TWIN.digest] >= 1 and left[PLAN.digest] + left[TWIN.digest] == 8
    assert (left[PLAN.digest] + 1) / (left[TWIN.digest] + 1) <= module.LONGER
    assert each.fill() == [], "they do not push each other out"


def test_what_was_dealt_by_hand_stays(fixed: Any) -> None:
    each = fixed(4 * ONE)
    dealer = Dealer()
    for _ in range(4):
        first, channel = dealer.deal(EPOCH, STORED, dealer.serial - 1, TWIN, nonces=(NO_NONCE, bytes(16)), count=1,
                                     patience=1.0)
        each.store.write(TWIN, first, 1, bytes(16), lambda serial, channel=channel: channel.receive)  # type: ignore[misc]
    each.dealer.serial = 4
    each.want(PLAN, 50)
    each.filler._demand._began -= 1e6
    assert each.fill() == [] and each.store.left() == {TWIN.digest: 4}


@pytest.mark.parametrize("since", [0.0, 1e6])
def test_material_that_nobody_wants_goes_when_this_is_known(fixed: Any, since: float) -> None:
    each = fixed(2 * ONE)
    each.want(TWIN)
    each.fill()
    later = fixed(2 * ONE)
    later.dealer.serial = 2
    later.filler._demand._began -= since
    later.want(PLAN, 5)
    later.fill()
    assert later.store.left() == ({PLAN.digest: 2} if since else {TWIN.digest: 2})


def test_material_of_another_epoch_makes_room(fixed: Any, settings: PartySettings) -> None:
    each = fixed(2 * ONE)
    other = Store(settings.store, bytes(32), "1f" * 16)
    for serial, ahead in ((0, True), (1, False)):
        other.write(PLAN, serial, 1, bytes(16), lambda _: Corrections(Dealer()).receive, ahead=ahead)
    each.want(PLAN)
    assert each.fill() == [(PLAN, 1)] and each.store.nbytes() == 2 * ONE and other.left() == {PLAN.digest: 1}


def test_a_plan_that_never_fits_is_told_once(fixed: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert run_bytes(OTHER) > ONE
    each = fixed(ONE)
    each.want(OTHER, 9)
    each.want(PLAN)
    assert each.fill() == [(PLAN, 1)] and each.fill() == []
    assert [record.message for record in caplog.records] == ["ahead_mb too small"]


def test_a_disk_that_is_nearly_full(fixed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    each = fixed()
    each.want(PLAN)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=module.RESERVE))
    with pytest.raises(StoreError, match="has only 268 MB left"):
        each.fill()
    assert each.dealer.asked == []


def test_a_deal_by_hand_goes_first(fixed: Any, settings: PartySettings) -> None:
    each = fixed()
    each.want(PLAN)
    with writing(settings.store):
        assert each.fill() == []
    assert each.fill()


def test_what_a_killed_process_left_goes(fixed: Any, settings: PartySettings) -> None:
    settings.store.mkdir()
    left, readers = settings.store / "a-b-0-ahead.part", settings.store / "a-b-0-ahead.cursor.part"
    for path in (left, readers):
        path.write_bytes(b"...")
    fixed().fill()
    assert not left.exists() and readers.exists(), "the reader writes that one"


def test_a_dealer_that_leaves_and_comes_back(fixed: Any, caplog: pytest.LogCaptureFixture,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", (0.01, 0.02))
    caplog.set_level(logging.INFO)
    each = fixed(ONE)
    each.dealer.away = True
    each.want(PLAN)
    each.filler.start()
    until(lambda: len(each.reports.failures) > 3)
    each.dealer.away = False
    until(lambda: each.reports.stored == 1)
    each.filler.close()
    assert set(each.reports.failures) == {"PeerLost"} and each.reports.most <= ONE
    events = [record.message for record in caplog.records]
    assert events.count("store not filled") == 1 and events.count("store filled") == 1


def test_the_end_comes_in_the_middle_of_a_piece(fixed: Any) -> None:
    each = fixed()
    each.want(PLAN)
    ended = threading.Event()

    def end() -> None:
        each.filler._stop.set()
        ended.set()

    assert PLAN.messages > 1
    each.dealer.at_end, each.dealer.ends_after = end, PLAN.messages + 1
    each.filler.start()
    until(ended.is_set)
    each.filler.close()
    assert not each.filler._thread.is_alive() and each.store.left() == {PLAN.digest: 1}
    assert not list(each.store.folder.glob("*.part")) and not each.reports.failures


def test_files_are_marked_as_made_ahead(fixed: Any) -> None:
    each = fixed(ONE)
    each.want(PLAN)
    each.fill()
    (path,) = each.store.folder.glob("*.store")
    assert path.stem.endswith(AHEAD)


def test_a_plan_without_corrections_needs_no_material(fixed: Any) -> None:
    each = fixed()
    each.want(Plan(()), 9)
    assert each.fill() == []


@pytest.mark.parametrize("changes", [{"rank": 0}, {"ahead_mb": 0}])
def test_party_0_and_who_sets_no_limit_make_nothing_ahead(fixed: Any, changes: dict[str, Any]) -> None:
    each = fixed(**changes)
    each.want(PLAN, 9)
    each.filler.start()
    assert not each.filler._thread.is_alive() and not each.filler._demand.wants({})
    each.filler.close()


@pytest.mark.parametrize("what", ["dealing", "running"])
def test_a_request_goes_first_between_pieces_and_between_messages(fixed: Any, monkeypatch: pytest.MonkeyPatch,
                                                                  what: str) -> None:
    """With patience without end, nothing moves while a request does; it goes on when that is over."""
    monkeypatch.setattr(module, "PATIENCE", 60.0)
    monkeypatch.setattr(module, "BRIEF", 60.0)
    monkeypatch.setattr(Precedence.give_way, "__defaults__", (60.0,))
    each = fixed(2 * ONE)
    each.want(PLAN)
    requests: Precedence = getattr(each, what)
    ends = [requests.begin()]
    begun = threading.Event()

    def begin() -> None:
        ends.append(requests.begin())
        begun.set()

    each.dealer.at_end, each.dealer.ends_after = begin, 1
    each.filler.start()
    assert not begun.wait(0.2) and not each.dealer.asked
    ends[0]()
    until(begun.is_set)
    time.sleep(0.2)
    assert each.dealer.received == 1
    ends[1]()
    until(lambda: each.reports.stored == 2)
