"""Logs of the served roles: one JSON object per line on stderr, never with a share, a seed, a key or a text."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


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


def log_to_stderr(role: str, level: str) -> None:
    """Logs this package's events of at least `level` to stderr, and warnings and errors of other packages."""
    handler = logging.StreamHandler(sys.stderr)
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
