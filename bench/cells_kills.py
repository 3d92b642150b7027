"""A batch job in whose middle something is killed: a role of a cell, a worker of Ray, the driver."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from cells_files import TOLERANCE, cells_file, rows_file, running, sentences, verified
from report import record

from secformer.roles.trial import ROLES, LocalRoles

CHUNK = 64      # rows of a part, so that there is a middle
AWAY = 3.0      # seconds for which a killed role is gone
UNTIL = 600.0   # seconds in which a job must end


def kills(args: argparse.Namespace, at: Path) -> int:
    """One undisturbed job, then one for each kill. Each must end with the same rows, each once."""
    texts, results = sentences(args.rows or 400, args.data), {}
    with running(at, 2) as cells:
        source, listed = rows_file(at, texts), cells_file(at, [each.settings("client") for each in cells])
        calm = _Job(source, at / "calm.parquet", listed)
        results["nothing"] = calm.to_its_end()
        verified(calm.output, texts)
        victims: dict[str, Callable[[_Job], None]] = {role: _role_killer(cells[0], role) for role in ROLES}
        victims |= {"worker": lambda job: job.kill_worker(), "driver": lambda job: job.kill_driver()}
        for name, kill in victims.items():
            for roles in cells:
                roles.wait_ready(120.0)
            job = _Job(source, at / f"{name}.parquet", listed)
            results[name] = job.to_its_end(kill)
            verified(job.output, texts)
            results[name]["largest_difference"] = _same(calm.output, job.output)
            print(f"{name} killed after {results[name]['rows_before']} rows: the output is whole", file=sys.stderr)
        twice = {f"{roles.folder.name} {role}": _twice(roles, role) for roles in cells for role in ROLES}
    if any(twice.values()):
        raise SystemExit(f"serials were used more than once: {twice}; nothing is recorded")
    record("cells-kills", {"rows": len(texts), "killed": results, "serials_used_twice": 0}, args.out)
    print(f"{len(victims)} kills: every output has the {len(texts)} rows of the undisturbed job, each once; no serial "
          f"was used twice")
    return 0


class _Job:
    """`secformer batch` as a process."""

    def __init__(self, source: Path, output: Path, cells: Path):
        self.output = output
        self._command = [sys.executable, "-m", "secformer", "batch", str(source), str(output), "--cells", str(cells),
                         "--task", "classify", "--id", "id", "--chunk", str(CHUNK), "--json", "--quiet"]
        self.process = self._started()

    def _started(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def to_its_end(self, kill: Callable[[_Job], None] | None = None) -> dict[str, Any]:
        """Runs it; kills something once a first part is there."""
        started, before = time.monotonic(), 0
        if kill is not None:
            self._until(lambda: self.parts > 0)
            before = self.parts * CHUNK
            kill(self)
        out, _ = self.process.communicate(timeout=UNTIL)
        if self.process.returncode:
            raise SystemExit(f"the job ended with exit code {self.process.returncode}: nothing is recorded")
        summary = json.loads(out)
        return {"rows_before": before, "seconds": round(time.monotonic() - started, 1),
                "failures_of_cells": [cell["failures"] for cell in summary["cells"]]}

    @property
    def parts(self) -> int:
        folder = self.output.with_name(self.output.name + ".parts")
        return len(list(folder.glob("*.arrow"))) if folder.is_dir() else 0

    def _until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + UNTIL
        while not holds():
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit("the job ended before anything could be killed; give it more --rows")
            time.sleep(0.02)

    def kill_driver(self) -> None:
        """And starts the same command again."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = self._started()

    def kill_worker(self) -> None:
        """One of Ray's workers that hold a cell."""
        workers = [pid for pid in _below(self.process.pid) if _called(pid, "ray::Worker")]
        if not workers:
            raise SystemExit("no worker of Ray was found: nothing is recorded")
        os.kill(workers[0], signal.SIGKILL)


def _role_killer(roles: LocalRoles, role: str) -> Callable[[_Job], None]:
    def kill(job: _Job) -> None:
        roles.stop(role, signal.SIGKILL)
        time.sleep(AWAY)
        roles.start(role)

    return kill


def _below(pid: int) -> list[int]:
    """All processes of the session that a process leads, and their children, from the system's table."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, new = set[int](), {pid}
    while new:
        found |= new
        new = {child for child, parent in parents.items() if parent in new} - found
    return sorted(found - {pid})


def _called(pid: int, name: str) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(name.encode())
    except OSError:
        return False


def _same(calm: Path, other: Path) -> float:
    """The largest difference of a score. Ends the bench where ids or labels differ."""
    a, b = pq.read_table(calm), pq.read_table(other)
    scores = [np.array(table["scores"].to_pylist()) for table in (a, b)]
    apart = np.abs(scores[0] - scores[1]).max(axis=1)
    near = np.abs(scores[0].max(axis=1) - 0.5) < TOLERANCE  # as good as equal: either label is right
    same = np.array([x == y for x, y in zip(a["label"].to_pylist(), b["label"].to_pylist(), strict=True)])
    if a["id"].to_pylist() != b["id"].to_pylist() or not (same | near).all() or apart.max() > TOLERANCE:
        raise SystemExit("the output differs from the undisturbed one: nothing is recorded")
    return float(apart.max())


def _twice(roles: LocalRoles, role: str) -> list[str]:
    """Serials that a role's journal has more than once."""
    path = roles.role_folder(role) / "state" / "serials.log"
    return [line for line, count in Counter(path.read_text("utf-8").splitlines()).items() if count > 1]
