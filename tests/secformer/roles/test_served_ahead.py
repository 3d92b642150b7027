"""All roles, where party 1 fills its store by itself and runs under `secformer workers`.

They start once. The file takes about 25 s of a processor.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from roles_lab import TEXT, ask, log_lines, no_serial_twice, right, serials, until

from secformer import demo_model
from secformer.roles.trial import LocalRoles

LIMIT = 24  # MB: a few runs
SETTINGS = {"deadline": 20.0, "dealer_wait": 2.0, "request_deadline": 60.0, "ahead_mb": LIMIT, "ahead_requests": 4}


class Cell(LocalRoles):
    """Party 1 is a worker under a supervisor."""

    def command(self, role: str) -> list[str]:
        if role == "party1":
            return [sys.executable, "-m", "secformer", "workers", str(self.settings(role))]
        return super().command(role)

    @property
    def worker(self) -> int:
        """The process of party 1 that was started last."""
        return int([line["pid"] for line in log_lines(self, "party1") if line["event"] == "worker started"][-1])


class Watched:
    """The bytes of a store, looked at all the time."""

    def __init__(self, folder: Path):
        self.most, self._folder, self._over = 0, folder, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            sizes = []
            for path in (*self._folder.glob("*.store"), *self._folder.glob("*.part")):
                try:
                    sizes.append((path.name.partition(".")[0], path.stat().st_size))
                except FileNotFoundError:
                    continue
            self.most = max(self.most, sum(dict(sizes).values()))  # one that is renamed meanwhile counts once

    def end(self) -> int:
        self._over.set()
        self._thread.join()
        return self.most


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    with Cell(tmp_path_factory.mktemp("ahead"), demo_model(), settings=SETTINGS) as cell:
        cell.wait_ready()
        yield cell
    no_serial_twice(cell)


def metrics(cell: Cell) -> dict[str, float]:
    connection = HTTPConnection("127.0.0.1", cell.ports["metrics1"], timeout=10)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    return {name: float(value) for name, _, value in (
        line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))}


def started(cell: Cell, space: str) -> float:
    return metrics(cell).get(f'secformer_started_runs_total{{space="{space}"}}', 0.0)


def left(cell: Cell) -> float:
    """Runs that were stored and not used since the party started: its gauge is as old as the filler's last look."""
    found = metrics(cell)
    return (found.get("secformer_ahead_filled_runs_total", 0.0)
            - found.get('secformer_started_runs_total{space="stored"}', 0.0))


def filled(cell: Cell) -> None:
    """Waits until there is material for as many requests as may be."""
    until(lambda: left(cell) >= 4, 60)


def test_requests_of_one_shape_are_soon_served_from_the_store(cell: Cell) -> None:
    watched = Watched(cell.role_folder("party1") / "store")
    for _ in range(2):
        right(ask(cell))
    assert started(cell, "live") == 2
    filled(cell)
    for _ in range(6):
        right(ask(cell))
    assert started(cell, "stored") >= 4
    filled(cell)
    found = metrics(cell)
    assert watched.end() <= LIMIT * 1e6
    assert 0 < found["secformer_ahead_bytes"] <= LIMIT * 1e6 and found["secformer_ahead_filled_runs_total"] >= 8
    assert sum(" stored =" in line for line in serials(cell, "party0")) == started(cell, "stored")
    assert {line["runs"] for line in log_lines(cell, "party1") if line["event"] == "store filled"}


def test_a_dealer_that_is_killed_and_comes_back(cell: Cell) -> None:
    filled(cell)
    stored = started(cell, "stored")
    cell.stop("dealer", signal.SIGKILL)
    try:
        for _ in range(4):
            right(ask(cell))
        assert started(cell, "stored") == stored + 4
        until(lambda: metrics(cell).get('secformer_ahead_failures_total{kind="PeerLost"}', 0) >= 1)
    finally:
        cell.start("dealer")
    filled(cell)
    right(ask(cell))
    assert started(cell, "stored") == stored + 5
    problems = [line for line in log_lines(cell, "party1") if line["event"] == "store not filled"]
    assert len(problems) == 1, "it is said once"


def test_a_party_that_is_killed_is_started_again_and_uses_what_it_has(cell: Cell) -> None:
    filled(cell)
    before = cell.worker
    os.kill(before, signal.SIGKILL)
    until(lambda: cell.worker != before)
    cell.wait_ready()
    right(ask(cell))
    assert (started(cell, "stored"), started(cell, "live")) == (1, 0), "material outlives its party"
    ended = [line for line in log_lines(cell, "party1") if line["event"] == "worker ended"]
    assert [line["code"] for line in ended] == [-9] and all(line["cell"] == "party1" for line in ended)


def test_a_party_ends_with_its_supervisor_and_in_order(cell: Cell) -> None:
    right(ask(cell, TEXT))
    worker = cell.worker
    process = cell.processes["party1"]
    cell.stop("party1")
    assert process.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert log_lines(cell, "party1")[-1]["event"] == "worker ended"
