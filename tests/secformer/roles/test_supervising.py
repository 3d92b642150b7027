"""Workers under a supervisor: real dealers that are killed, cannot start, hang, or lose their supervisor.

The tests of processes take about 15 s of a processor: each start of a dealer, and of a supervisor, takes 1.3 s.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from roles_lab import until

from secformer.mpc.net.tcp import free_ports, listening
from secformer.roles.certificates import init
from secformer.roles.settings import load_dealer
from secformer.roles.supervising import FIRST, LONGEST, REFUSED, BackOff, named
from secformer.roles.worker_files import Worker


def test_pauses_double_and_a_long_life_begins_anew() -> None:
    back_off = BackOff()
    assert [back_off.after(0.5, -9) for _ in range(8)] == [FIRST, 2, 4, 8, 16, 32, LONGEST, LONGEST]
    assert back_off.after(LONGEST, 0) == FIRST and back_off.after(LONGEST - 1, 0) == 2 * FIRST


@pytest.mark.parametrize("code", [1, 2])
def test_settings_that_cannot_be_used_are_not_tried_in_a_tight_loop(code: int) -> None:
    back_off = BackOff()
    assert [back_off.after(0.5, code) for _ in range(4)] == [REFUSED, 2 * REFUSED, 4 * REFUSED, LONGEST]


def test_lines_get_the_cells_name() -> None:
    worker = Worker("a", "dealer", Path("a.toml"), Any)  # type: ignore[arg-type]
    line, problem = named('{"event": "x", "problem": "p", "n": 1}', worker)
    assert json.loads(line) == {"cell": "a", "event": "x", "problem": "p", "n": 1} and problem == "p"
    for text in ("secformer: error", "[1]", "7", "[" * 100_000):
        line, problem = named(text, worker)
        facts = json.loads(line)
        assert (facts["cell"], facts["role"], facts["problem"], problem) == ("a", "dealer", text, text)
    assert named("{}", worker)[1] == ""


# ---- processes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The settings files of three cells' dealers."""
    folder = tmp_path_factory.mktemp("cells")
    for name in "abc":
        init(folder / name, ports=dict(zip(("dealer", "dealer_metrics"), free_ports(2), strict=True)))
    return {name: folder / name / "dealer" / "dealer.toml" for name in "abc"}


class Run:
    """`secformer workers` as a process, and what it has logged."""

    def __init__(self, log: Path, *arguments: str | Path):
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "secformer", "workers", *map(str, arguments)], stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True)

    def lines(self, event: str, **facts: Any) -> list[dict[str, Any]]:
        text = self._log.read_text()
        found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in found if line["event"] == event and facts.items() <= line.items()]

    def pid(self, cell: str) -> int:
        """The process of a cell's worker that was started last."""
        return int(self.lines("worker started", cell=cell)[-1]["pid"])


@contextmanager
def running(log: Path, *arguments: str | Path) -> Iterator[Run]:
    run = Run(log, *arguments)
    try:
        yield run
    finally:
        with suppress(ProcessLookupError):
            run.process.kill()
        run.process.wait()
        for line in run.lines("worker started"):
            with suppress(ProcessLookupError):
                os.kill(line["pid"], signal.SIGKILL)


def ready(cells: dict[str, Path], names: str) -> bool:
    """Whether these dealers do their work, and end in order where they are asked to."""
    for name in names:
        address = load_dealer(cells[name]).metrics
        assert address is not None
        connection = HTTPConnection(*address, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status != 200:
                return False
        except OSError:
            return False
        finally:
            connection.close()
    return True


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended, and that nobody has taken leave of, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")


@needs_proc
def test_workers_are_started_again_and_end_together(cells: dict[str, Path], tmp_path: Path) -> None:
    """One is killed; one cannot have its port, and gets it later; all end with SIGTERM, in order."""
    taken, cores = listening(load_dealer(cells["c"]).listen), sorted(os.sched_getaffinity(0))
    pins = ["--pin", ",".join(map(str, cores[:3]))] if len(cores) >= 3 else []
    with running(tmp_path / "log", *cells.values(), *pins) as run:
        until(lambda: ready(cells, "ab"), 60)
        first = run.pid("a")
        assert os.sched_getaffinity(first) == set(cores[:1] if pins else cores)
        run.process.send_signal(signal.SIGHUP)
        until(lambda: bool(run.lines("worker ended", cell="c")), 60)
        (refused,) = run.lines("worker ended", cell="c")
        assert (refused["code"], refused["again"]) == (1, f"in {REFUSED:g} s") and "cannot listen" in refused["problem"]
        os.kill(first, signal.SIGKILL)
        until(lambda: len(run.lines("listening", cell="a")) == 2, 60)
        (ended,) = run.lines("worker ended", cell="a")
        assert (ended["code"], ended["again"]) == (-9, f"in {FIRST:g} s")
        taken.close()
        until(lambda: ready(cells, "abc"), 60)
        assert not run.lines("worker ended", cell="b"), "the others are served meanwhile, and SIGHUP ends nobody"
        pids = [run.pid(cell) for cell in "abc"]
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(60) == 0 and not any(map(alive, pids))
        for cell in "abc":
            assert run.lines("ended", cell=cell, role="dealer")
            assert run.lines("worker ended", cell=cell)[-1]["code"] == 0


@needs_proc
def test_a_worker_that_hangs_is_killed(cells: dict[str, Path], tmp_path: Path) -> None:
    """Each on a core of its own, where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    pins = ["--cores", "1"] if len(cores) >= 2 else []
    with running(tmp_path / "log", cells["a"], cells["b"], "--ending", "1", *pins) as run:
        until(lambda: ready(cells, "ab"), 60)
        pids = [run.pid(cell) for cell in "ab"]
        if pins:
            assert [os.sched_getaffinity(pid) for pid in pids] == [{cores[0]}, {cores[1]}]
        os.kill(pids[0], signal.SIGSTOP)
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(60) == 0 and not any(map(alive, pids))
        assert [line["cell"] for line in run.lines("worker killed")] == ["a"]
        assert run.lines("ended", cell="b")


@needs_proc
def test_no_worker_outlives_its_supervisor(cells: dict[str, Path], tmp_path: Path) -> None:
    """Killed, it can tell nobody: the workers notice by their standard input, which only it held."""
    with running(tmp_path / "log", cells["a"]) as run:
        until(lambda: ready(cells, "a"), 60)
        pid = run.pid("dealer")
        assert alive(pid)
        run.process.kill()
        run.process.wait()
        until(lambda: not alive(pid), 60)
