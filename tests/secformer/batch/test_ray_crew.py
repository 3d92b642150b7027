"""Real cells and Ray: two cells of the shipped model over TLS, and everything that can be killed is.

Costs about 60 processor seconds, most of them for six roles and two starts of Ray.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from batch_lab import read_rows, write_rows
from cells_lab import cells_file
from roles_lab import TOLERANCE, no_serial_twice, until

from secformer import demo_model, plain_bert
from secformer.roles.trial import LocalRoles

PART = 8  # rows
AGENTS = "ray::DashboardAgent", "ray::RuntimeEnvAgent"
TEXTS = [f"{'A warm and funny' if i % 3 else 'A dull and lifeless'} film, number {i}." + " Really." * (i % 7)
         for i in range(72)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[LocalRoles]]]:
    """A list of two cells that run."""
    folder = tmp_path_factory.mktemp("cells")
    with ExitStack() as opened:
        cells = []
        for name in "ab":
            (folder / name).mkdir()
            roles = LocalRoles(folder / name, demo_model())
            file = roles.settings("client")
            file.write_text(file.read_text().replace("# batch_tokens = 1024", "batch_tokens = 48"))
            cells.append(opened.enter_context(roles))
        for each in cells:
            each.wait_ready()
        yield cells_file(folder, {name: f"{name}/roles/client/client.toml" for name in "ab"}), cells


class Driver:
    """The command as a process."""

    def __init__(self, source: Path, out: Path, cells: Path):
        command = [sys.executable, "-m", "secformer", "batch", str(source), str(out), "--cells", str(cells), "--task",
                   "classify", "--chunk", str(PART), "--id", "key", "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.parts = out.with_name(f"{out.name}.parts")
        self.seen: dict[int, str] = {}  # its processes, and when each began: numbers are used again
        self.names: dict[int, str] = {}

    def descendants(self) -> dict[int, str]:
        """All processes that it has started, and what they are called."""
        found, todo = dict[int, str](), [self.process.pid]
        while todo:
            for child in _children(todo.pop()):
                with suppress(OSError):  # it has ended
                    found[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                    todo.append(child)
        self.names = found
        self.seen |= {pid: began for pid in found.keys() - self.seen.keys() if (began := _began(pid))}
        return found

    def workers(self) -> list[int]:
        return [pid for pid, name in self.descendants().items() if name.startswith("ray::Worker")]

    def until_parts(self, count: int) -> None:
        def reached() -> bool:
            assert self.process.poll() is None, self.process.communicate()
            return len(list(self.parts.glob("*.arrow"))) >= count
        until(reached, 120.0)

    def until_gone(self, *, killed: bool = False) -> None:
        """Nothing that it has started is left. Ray's agents look for a killed driver for about a minute first."""
        if killed:
            for pid, name in self.names.items():
                if name.startswith(AGENTS) and _began(pid) == self.seen.get(pid):
                    os.kill(pid, signal.SIGKILL)

        def left() -> list[int]:
            return [pid for pid, began in self.seen.items() if _began(pid) == began]
        until(lambda: not left())


def _children(pid: int) -> list[int]:
    found = list[int]()
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def _began(pid: int) -> str:
    """When a process began; "" for one that has ended."""
    try:
        state, *facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else facts[18]


@pytest.mark.slow
def test_whatever_is_killed_each_row_is_answered_once(tmp_path: Path, two: tuple[Path, list[LocalRoles]]) -> None:
    listed, (one, other) = two
    source = write_rows(tmp_path / "in.csv", [{"key": f"k{i}", "text": text} for i, text in enumerate(TEXTS)])
    out = tmp_path / "out.parquet"

    first = Driver(source, out, listed)
    first.until_parts(1)
    assert len(first.workers()) == 2
    first.process.kill()
    first.process.communicate()
    first.until_gone(killed=True)
    kept = {part.name: part.read_bytes() for part in first.parts.glob("*.arrow")}
    assert 0 < len(kept) < len(TEXTS) / PART and not out.exists()

    second = Driver(source, out, listed)
    second.until_parts(len(kept) + 1)
    os.kill(second.workers()[0], signal.SIGKILL)
    one.stop("party1", signal.SIGKILL)
    second.until_parts(len(kept) + 2)
    one.start("party1")
    second.descendants()
    told, complaints = second.process.communicate(timeout=300)
    assert second.process.returncode == 0, complaints
    second.until_gone()

    summary = json.loads(told)
    assert summary["rows"] == len(TEXTS) and summary["failed"] == summary["marked"] == 0 and summary["bytes"] > 0
    assert summary["answered"] == len(TEXTS) - PART * len(kept)
    assert sum(cell["failures"] for cell in summary["cells"]) >= 1
    found, wanted = read_rows(out), plain_bert(demo_model(), TEXTS)
    assert [row["key"] for row in found] == [f"k{i}" for i in range(len(TEXTS))]
    assert [row["label"] for row in found] == wanted.labels and all(row["trusted"] for row in found)
    assert wanted.probabilities is not None
    assert np.abs(np.array([row["scores"] for row in found]) - wanted.probabilities).max() < TOLERANCE
    for roles in (one, other):
        no_serial_twice(roles)
