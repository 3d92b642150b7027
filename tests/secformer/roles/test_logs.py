"""Logs: one JSON object per line, whatever an event carries."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

from secformer.roles.logs import JSONLines


def line(message: str, **extra: Any) -> dict[str, Any]:
    record = logging.getLogger("secformer.test").makeRecord("secformer.test", logging.WARNING, "file", 1, message, (),
                                                            extra.pop("exc_info", None), extra=extra)
    text = JSONLines("party0").format(record)
    assert "\n" not in text
    facts: dict[str, Any] = json.loads(text)
    return facts


def test_an_event_and_its_fields() -> None:
    facts = line("answered", fields={"request": "id", "path": Path("a"), "text": "two\nlines"})
    assert list(facts)[:4] == ["time", "level", "role", "event"]
    assert (facts["level"], facts["role"], facts["event"]) == ("warning", "party0", "answered")
    assert (facts["request"], facts["path"], facts["text"]) == ("id", "a", "two\nlines")
    assert facts["time"].endswith("+00:00")


def test_a_defect_brings_its_traceback() -> None:
    try:
        raise ZeroDivisionError("nothing")
    except ZeroDivisionError:
        facts = line("unexpected", exc_info=sys.exc_info())
    assert "ZeroDivisionError: nothing" in facts["traceback"]


def test_levels_here_and_elsewhere() -> None:
    """This package's events from the given level on; of other packages, warnings."""
    script = ("import logging\nfrom secformer.roles.logs import log_to_stderr\nlog_to_stderr('dealer', 'info')\n"
              "for name in ('secformer.x', 'other'):\n"
              "    for level in ('debug', 'info', 'warning'):\n"
              "        getattr(logging.getLogger(name), level)(f'{name} {level}')\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    events = [json.loads(text)["event"] for text in done.stderr.splitlines()]
    assert events == ["secformer.x info", "secformer.x warning", "other warning"] and done.stdout == ""
