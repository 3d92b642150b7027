"""Logs: one JSON object per line, whatever an event carries."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from roles_lab import until

from secformer.mpc.net.door import FAILED, JUNK, Refused
from secformer.roles import logs
from secformer.roles.logs import BURST, EVENTS, JSONLines, Thinned, refusals


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


def written(handler: Thinned, stream: io.StringIO, *events: tuple[str, int, dict[str, Any]]) -> list[dict[str, Any]]:
    for event, level, fields in events:
        record = logging.LogRecord("x", level, "file", 1, event, (), None)
        record.fields = fields
        handler.handle(record)
    return [json.loads(text) for text in stream.getvalue().splitlines()]


@pytest.fixture
def thinned() -> Iterator[tuple[Thinned, io.StringIO]]:
    handler = Thinned(stream := io.StringIO())
    handler.setFormatter(JSONLines("dealer"))
    yield handler, stream
    handler.close()


def test_a_flood_of_one_warning_is_counted(thinned: tuple[Thinned, io.StringIO]) -> None:
    handler, stream = thinned
    flood = [("connection refused", logging.WARNING, {"from": str(i), "why": "junk"}) for i in range(1000)]
    assert len(written(handler, stream, *flood)) == BURST
    others = [("connection refused", logging.WARNING, {"why": "unproved"}), ("lost", logging.WARNING, {}),
              *[("answered", logging.INFO, {})] * 50]
    assert len(written(handler, stream, *others)) == BURST + 52, "other reasons, events and levels are all written"
    handler.close()
    last = json.loads(stream.getvalue().splitlines()[-1])
    assert (last["event"], last["problem"]) == ("connection refused", f"{1000 - BURST} more like it in 10 s")


def test_the_count_comes_when_the_window_ends(thinned: tuple[Thinned, io.StringIO],
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "WINDOW", 0.2)
    handler, stream = thinned
    written(handler, stream, *[("e", logging.ERROR, {})] * (BURST + 3))
    until(lambda: "3 more like it in 0.2 s" in stream.getvalue())
    time.sleep(0.2)
    assert len(written(handler, stream, ("e", logging.ERROR, {}))) == BURST + 2, "a new window has begun"


def test_many_different_events_take_little_memory(thinned: tuple[Thinned, io.StringIO]) -> None:
    handler, stream = thinned
    written(handler, stream, *[(f"event {i}", logging.WARNING, {}) for i in range(10 * EVENTS)])
    assert len(handler._windows) <= EVENTS + 1 and len(stream.getvalue().splitlines()) == EVENTS + BURST


def test_refusals_are_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    counted: list[tuple[str, str]] = []
    told = refusals("link", lambda port, why: counted.append((port, why)))
    told(Refused("10.0.0.9:1", JUNK, "it began with nonsense"))
    told(Refused("10.0.0.1:1", FAILED, "it broke"))
    assert counted == [("link", JUNK), ("link", FAILED)]
    assert [record.getMessage() for record in caplog.records] == ["connection refused", "connection lost"]
