"""Workers as processes: each is started again when it ends by itself, and all end with their supervisor."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType

from secformer.roles.pinning import Cores, pinned
from secformer.roles.worker_files import Worker

FIRST, LONGEST = 1.0, 60.0  # seconds until a worker is started again: at first, at most
REFUSED = 10.0              # seconds at least, after an exit code that says that its settings cannot be used
UNUSABLE = (1, 2)           # such codes
POLL = 0.1                  # seconds between two looks at the workers
ENDING = 30.0               # seconds in which a worker must end before it is killed
LINE = 1 << 16              # characters of a line that are passed on

log = logging.getLogger(__name__)


class BackOff:
    """How long to wait before a worker is started again."""

    def __init__(self) -> None:
        self._pause = FIRST

    def after(self, lived: float, code: int) -> float:
        """Seconds, for a worker that ended after `lived` seconds with this exit code. A long life begins anew."""
        if lived >= LONGEST:
            self._pause = FIRST
        wait = max(self._pause, REFUSED) if code in UNUSABLE else self._pause
        self._pause = min(2 * wait, LONGEST)
        return wait


@dataclass
class _Process:
    """A worker's process, while it runs; `due` is when the next one starts, as `time.monotonic`."""

    worker: Worker
    cores: Cores | None
    back_off: BackOff
    due: float = 0.0
    started: float = 0.0
    running: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    last: str = ""
    reader: threading.Thread | None = None


class Supervisor:
    """Runs workers until SIGTERM or SIGINT, which each of them gets. SIGHUP is passed on: certificates are read again.

    Each worker's standard input is a pipe that only this process holds, and that nothing is written to. It ends with
    this process, however that ends; a worker that notices ends too (see `signals.end_with_input`).

    cores   for each worker; None where they share all
    write   takes what the workers log, line by line, with the names of their cells; from several threads
    ending  seconds in which a worker must end before it is killed
    """

    def __init__(self, workers: Sequence[Worker], cores: Sequence[Cores | None], write: Callable[[str], None],
                 ending: float = ENDING):
        self._processes = [_Process(worker, each, BackOff()) for worker, each in zip(workers, cores, strict=True)]
        self._write, self._ending = write, ending
        self._asked, self._renew = threading.Event(), threading.Event()

    def run(self) -> None:
        """Returns when all have ended because this process was asked to. Main thread only."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, self._hang_up)
        try:
            while not self._asked.wait(POLL):
                for process in self._processes:
                    self._tend(process)
                if self._renew.is_set():
                    self._renew.clear()
                    self._tell(signal.SIGHUP)
        finally:
            self._end()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        self._renew.set()

    def _tend(self, process: _Process) -> None:
        now = time.monotonic()
        if process.running is None:
            if now >= process.due:
                self._start(process)
        elif (code := process.running.poll()) is not None:
            self._gone(process)
            wait = process.back_off.after(now - process.started, code)
            process.due = now + wait
            self._log(logging.ERROR, "worker ended", process, code=code, problem=process.last,
                      again=f"in {wait:g} s")

    def _start(self, process: _Process) -> None:
        worker, process.started, process.last = process.worker, time.monotonic(), ""
        role = ["dealer"] if worker.role == "dealer" else ["party", "--rank", worker.role[-1]]
        command = [sys.executable, "-m", "secformer", *role, "--settings", str(worker.path), "--supervised"]
        try:
            with pinned(process.cores), _deaf():
                process.running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                                   stderr=subprocess.STDOUT, start_new_session=True)
        except OSError as error:
            wait = process.back_off.after(0.0, -1)
            process.due = process.started + wait
            self._log(logging.ERROR, "worker not started", process, problem=str(error), again=f"in {wait:g} s")
            return
        process.reader = threading.Thread(target=self._pass_on, args=(process, process.running), daemon=True,
                                          name=f"log of {worker.cell}")
        process.reader.start()
        self._log(logging.INFO, "worker started", process, pid=process.running.pid,
                  cores=sorted(process.cores) if process.cores is not None else "all")

    def _pass_on(self, process: _Process, running: subprocess.Popen[bytes]) -> None:
        output = running.stdout
        for raw in iter(lambda: output.readline(LINE) if output is not None else b"", b""):
            line, problem = named(raw.decode("utf-8", "replace").rstrip("\n"), process.worker)
            process.last = problem or process.last
            self._write(line)

    def _gone(self, process: _Process) -> None:
        """Takes leave of a process that has ended."""
        running, process.running = process.running, None
        if process.reader is not None:
            process.reader.join(1.0)  # its last words
            if process.reader.is_alive():
                return  # whoever reads our own log is slow; the pipe is closed when it has taken all
        if running is not None:
            for pipe in (running.stdin, running.stdout):
                if pipe is not None:
                    pipe.close()

    def _tell(self, number: int) -> None:
        for process in self._processes:
            if process.running is not None:
                process.running.send_signal(number)

    def _end(self) -> None:
        self._tell(signal.SIGTERM)
        end = time.monotonic() + self._ending
        for process in self._processes:
            if process.running is None:
                continue
            try:
                process.running.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._log(logging.WARNING, "worker killed", process,
                          problem=f"it did not end within {self._ending:g} s")
                process.running.kill()
                process.running.wait()
            self._log(logging.INFO, "worker ended", process, code=process.running.returncode)
            self._gone(process)

    def _log(self, level: int, event: str, process: _Process, **facts: object) -> None:
        log.log(level, event, extra={"fields": {"cell": process.worker.cell, "worker": process.worker.role, **facts}})


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started meanwhile ignores SIGHUP until it has a use for it: it reads its certificates anyway."""
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def named(line: str, worker: Worker) -> tuple[str, str]:
    """A line of a worker's log with its cell's name in it, and the problem that it tells, if any. What is not a JSON
    object becomes one."""
    try:
        facts = json.loads(line)
    except (ValueError, RecursionError):
        facts = None
    if isinstance(facts, dict):
        return json.dumps({"cell": worker.cell} | facts), str(facts.get("problem") or "")
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"cell": worker.cell, "time": now, "level": "info", "role": worker.role, "event": "said",
                       "problem": line}), line
