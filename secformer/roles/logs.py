"""Logs of the served roles: a JSON object a line on stderr. Never a share, a seed, a key or a text."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


class JSONLines(logging.Formatter):
    """time, level, role, event, and the fields that `extra={"fields": {...}}` gave."""

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
    """Sends everything from `level` on to stderr; of other packages, warnings and worse."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines(role))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("secformer").setLevel(level.upper())
