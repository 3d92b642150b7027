"""Logs of the served roles: one JSON object per line on stderr, never with a share, a seed, a key or a text."""

from __future__ import annotations

import json
import logging
import sys
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from secformer.mpc.net.door import FAILED, Refused, Report

WINDOW = 10.0  # seconds
BURST = 10     # warnings of one event that are written in a window
EVENTS = 256   # events that are told apart


class JSONLines(logging.Formatter):
    """Formats a record as time, level, role, event, and the fields given by `extra={"fields": {...}}`."""

    def __init__(self, role: str):
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        facts = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(), "role": self._role, "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            facts["traceback"] = self.formatException(record.exc_info)
        return json.dumps(facts, default=str)


class Thinned(logging.StreamHandler[TextIO]):
    """Writes at most `BURST` warnings or errors of one event in `WINDOW` seconds, and then how many more there were:
    whoever causes them must not fill the disk. Events of lower levels are all written."""

    def __init__(self, stream: TextIO):
        super().__init__(stream)
        self._windows: dict[tuple[str, str, str], _Window] = {}

    def handle(self, record: logging.LogRecord) -> bool:
        return bool(super().handle(record)) if record.levelno < logging.WARNING or self._admits(record) else False

    def _admits(self, record: logging.LogRecord) -> bool:
        event = (record.name, str(record.msg), str(getattr(record, "fields", {}).get("why")))
        with self._lock:
            if event not in self._windows and len(self._windows) >= EVENTS:
                event = ("", "", "")  # all further ones together
            window = self._windows.get(event)
            if window is None or record.created - window.began >= WINDOW:
                if window is not None:
                    self._tell(window)
                window = self._windows[event] = _Window(record.created)
            window.count += 1
            if window.count == BURST + 1:
                window.last = record
                timer = threading.Timer(max(0.0, window.began + WINDOW - record.created), self._tell, (window,))
                timer.daemon = True
                timer.start()
            return window.count <= BURST

    def _tell(self, window: _Window) -> None:
        """Says, once, how many were left out."""
        with self._lock:
            last, window.last = window.last, None
        if last is not None:
            told = logging.LogRecord(last.name, last.levelno, last.pathname, last.lineno, last.msg, last.args, None)
            told.fields = {"problem": f"{window.count - BURST} more like it in {WINDOW:g} s"}
            super().handle(told)

    @property
    def _lock(self) -> AbstractContextManager[Any]:
        return self.lock  # type: ignore[return-value]

    def close(self) -> None:
        for window in self._windows.values():
            self._tell(window)
        super().close()


@dataclass
class _Window:
    """How often an event came since `began`; `last` is one that was left out and not told yet."""

    began: float
    count: int = 0
    last: logging.LogRecord | None = None


def refusals(port: str, count: Callable[[str, str], None] = lambda port, why: None) -> Report:
    """Logs the connections to a port that are not let in, or that fail, and counts them by port and reason."""
    def told(refused: Refused) -> None:
        event = "connection lost" if refused.why == FAILED else "connection refused"
        logging.getLogger(__name__).warning(event, extra={"fields": {
            "port": port, "from": refused.where, "why": refused.why, "problem": refused.problem}})
        count(port, refused.why)

    return told


def log_to_stderr(role: str, level: str) -> None:
    """Logs this package's events of at least `level` to stderr, and warnings and errors of other packages."""
    handler = Thinned(sys.stderr)
    handler.setFormatter(JSONLines(role))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("secformer").setLevel(level.upper())


def not_recorded(why: str) -> None:
    """Logs that requests of a shape run launch by launch on a GPU, and why."""
    logging.getLogger(__name__).warning("not recorded", extra={"fields": {"problem": why}})


def certificates_read(event: str, problem: str) -> None:
    """Logs that the files of a role's certificates were read again, or why they cannot be used."""
    if problem:
        logging.getLogger(__name__).error(event, extra={"fields": {"problem": problem}})
    else:
        logging.getLogger(__name__).info(event)


def asyncio_problem(loop: AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """Logs what asyncio reports, under one name, so that it cannot fill the log."""
    logging.getLogger(__name__).error("unexpected", exc_info=context.get("exception"),
                                      extra={"fields": {"problem": context["message"]}})
