"""Whether a cell gets work: one that has failed rests, is asked how it does, and comes back by itself.

For whoever hands work to several cells, such as the gateway or a batch job. While other cells serve, users' requests
are not spent on finding out whether a cell is back: a probe asks it. A cell that says it is ready and then fails again
rests for longer each time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from secformer.cells.health import CellHealth

REST = 2.0         # seconds that a cell rests after its first failure, and between the first probes
LONGEST_REST = 60.0  # seconds that it rests after many failures in a row, at most
LONGEST_PAUSE = 10.0 # seconds between probes, at most

log = logging.getLogger(__name__)


class Watch:
    """Watches one cell. Thread-safe. It has a thread only while the cell is away. `close` it.

    name   what the log calls the cell
    probe  asks how the cell does; None: nothing is asked, so the rest alone decides
    rest   seconds of the first rest
    """

    def __init__(self, name: str, probe: Callable[[], CellHealth] | None = None, *, rest: float = REST):
        self.name, self._probe, self._rest = name, probe, rest
        self._lock = threading.Lock()
        self._failures = 0                         # in a row, since the cell has served
        self._problem = ""
        self._back: threading.Event | None = None  # of the absence that goes on: set when it ends
        self._closed = False

    @property
    def away(self) -> bool:
        """Whether the cell should get nothing while another one can serve."""
        with self._lock:
            return self._back is not None

    @property
    def problem(self) -> str:
        """The kind of error of its last request; "" if that was answered, or a probe has found nothing against the cell
        since."""
        with self._lock:
            return self._problem

    def failed(self, error: Exception) -> None:
        """A request has failed because of the cell. It rests; if it rested already, the rest goes on as it was."""
        log.warning("cell failed", extra={"fields": {"cell": self.name, "problem": str(error)}})
        with self._lock:
            self._problem = type(error).__name__
            if self._closed or self._back is not None:
                return
            self._back = back = threading.Event()
            rest = min(LONGEST_REST, self._rest * 2.0 ** min(self._failures, 30))
            self._failures += 1
        threading.Thread(target=self._absent, args=(back, rest), name=f"probe of {self.name}", daemon=True).start()

    def served(self) -> None:
        """A request was answered: the cell is back, and what it did before is forgotten."""
        with self._lock:
            told = bool(self._problem)
            self._problem, self._failures = "", 0
            self._end()
        if told:
            log.info("cell serves again", extra={"fields": {"cell": self.name}})

    def close(self) -> None:
        """Ends the probing; nothing is waited for."""
        with self._lock:
            self._closed = True
            self._end()

    def _end(self) -> None:
        if self._back is not None:
            self._back.set()
            self._back = None

    def _absent(self, back: threading.Event, rest: float) -> None:
        """An absence: the rest, and then probes, until nothing is known against the cell, or `back` is set."""
        pause, logged = self._rest, ""
        self._wait(back, rest)
        while not back.is_set() and (problem := self._found()):
            if problem != logged:
                log.info("cell away", extra={"fields": {"cell": self.name, "problem": problem}})
            logged = problem
            self._wait(back, pause)
            pause = min(LONGEST_PAUSE, 2 * pause)
        with self._lock:
            if self._back is not back:
                return
            self._back = None
            if self._probe is None:
                return  # that the rest is over says nothing of the cell
            self._problem = ""  # else a gateway that calls itself not ready for it would never get a request again
        log.info("cell back", extra={"fields": {"cell": self.name}})

    def _wait(self, back: threading.Event, seconds: float) -> None:
        back.wait(seconds)

    def _found(self) -> str:
        """Why the cell cannot come back yet; "" if nothing is known against it."""
        try:
            return self._probe().problem if self._probe is not None else ""
        except Exception as error:  # a defect: the cell stays away, and the log says why
            log.exception("unexpected")
            return type(error).__name__
