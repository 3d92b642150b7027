"""When a cell that has failed gets work again: rests, probes, and what resets them. Cost: less than one second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from roles_lab import until

from secformer.cells.health import CellHealth, PartyHealth
from secformer.cells.watch import Watch
from secformer.mpc.errors import PeerLost

FINE = CellHealth((PartyHealth(), PartyHealth()))
GONE = CellHealth((PartyHealth(), PartyHealth(problem="no answer", reached=False)))


class Probing:
    """A probe whose answers the test gives; it notes when it was asked."""

    def __init__(self) -> None:
        self.health, self.times = GONE, list[float]()

    def __call__(self) -> CellHealth:
        self.times.append(time.monotonic())
        return self.health


@pytest.fixture
def probing() -> Probing:
    return Probing()


@pytest.fixture
def cell(probing: Probing) -> Iterator[Watch]:
    cell = Watch("a", probing, rest=0.01)
    yield cell
    cell.close()


def failed(cell: Watch) -> None:
    cell.failed(PeerLost("gone"))


def test_a_cell_that_failed_is_away_until_a_probe_finds_nothing_against_it(cell: Watch, probing: Probing) -> None:
    assert not cell.away and cell.problem == ""
    failed(cell)
    assert cell.away and cell.problem == "PeerLost"
    until(lambda: len(probing.times) >= 3)
    assert cell.away
    probing.health = FINE
    until(lambda: not cell.away)
    assert cell.problem == "", "else a gateway that is not ready for it would never get a request again"
    asked = len(probing.times)
    cell.served()
    assert cell.problem == "" and not cell.away and len(probing.times) == asked, "who is back is not probed"


def test_an_answer_ends_the_absence(cell: Watch, probing: Probing) -> None:
    failed(cell)
    cell.served()
    assert not cell.away and cell.problem == ""
    count = len(threading.enumerate())
    until(lambda: not any(thread.name == "probe of a" for thread in threading.enumerate()))
    assert count >= len(threading.enumerate())


def test_failures_while_it_is_away_change_nothing(cell: Watch, probing: Probing) -> None:
    for _ in range(20):
        failed(cell)
    assert sum(thread.name == "probe of a" for thread in threading.enumerate()) == 1
    probing.health = FINE
    until(lambda: not cell.away)  # not after 0.01 * 2 ** 20 seconds


class Impatient(Watch):
    """A watch that does not wait, but notes how long it would."""

    waited: list[float]

    def _wait(self, back: threading.Event, seconds: float) -> None:
        self.waited.append(seconds)


def test_a_cell_that_says_it_is_ready_and_fails_rests_longer_each_time(probing: Probing) -> None:
    probing.health = FINE
    cell = Impatient("b", probing, rest=2.0)
    cell.waited = []
    for _ in range(8):
        failed(cell)
        until(lambda: not cell.away)
    assert cell.waited == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    cell.served()
    failed(cell)
    until(lambda: not cell.away)
    assert cell.waited[8:] == [2.0], "an answer makes it all forgotten"
    cell.waited.clear()
    probing.health = GONE
    failed(cell)
    until(lambda: len(cell.waited) > 8)
    cell.close()
    assert cell.waited[:8] == [4.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 10.0]


def test_without_a_probe_the_rest_alone_decides() -> None:
    cell = Watch("a", rest=0.02)
    failed(cell)
    assert cell.away
    until(lambda: not cell.away)
    assert cell.problem == "PeerLost", "nobody has asked the cell"


def test_a_defect_of_the_probe_is_logged_and_keeps_the_cell_away(caplog: pytest.LogCaptureFixture) -> None:
    broken = threading.Event()

    def probe() -> CellHealth:
        if not broken.is_set():
            broken.set()
            raise RuntimeError("a defect")
        return FINE

    cell = Watch("a", probe, rest=0.01)
    failed(cell)
    until(lambda: not cell.away)
    assert broken.is_set() and "unexpected" in [record.message for record in caplog.records]


def test_closing_ends_the_probing(cell: Watch, probing: Probing) -> None:
    failed(cell)
    cell.close()
    failed(cell)
    assert not cell.away
    until(lambda: not any(thread.name == "probe of a" for thread in threading.enumerate()))
