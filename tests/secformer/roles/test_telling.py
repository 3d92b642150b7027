"""What a party tells its clients about itself, and what a client believes of it. Cost: less than one second."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from secformer.mpc.prg import FORMAT
from secformer.roles.audit import Unaudited
from secformer.roles.jobs import Jobs
from secformer.roles.telling import LONGEST, UNAUDITED, Told, told
from secformer.version import __version__

pytest.importorskip("prometheus_client", reason="the served roles need the extra `serve`")

from secformer.roles.monitoring import Status

MODEL = "ab" * 32
WHOLE = Told(__version__, FORMAT, MODEL, "01234567", "", 3, 2, 40)


def test_what_is_told_is_read_as_the_same() -> None:
    for each in (WHOLE, replace(WHOLE, epoch="", material=None, problem="starting")):
        assert Told.read(json.loads(json.dumps(each.facts()))) == each


@pytest.mark.parametrize("changes", [
    {"version": 1}, {"version": "1\x1b[2J"}, {"version": "v" * (LONGEST + 1)}, {"streams": None},
    {"problem": "a\nb"}, {"problem": "\u202e"}, {"problem": ["x"]}, {"model": "ab"}, {"model": MODEL.upper()},
    {"epoch": "0123"}, {"epoch": None}, {"epoch": "0123456 "}, {"waiting": -1}, {"waiting": True}, {"running": 1.0},
    {"running": None}, {"waiting": "3"}, {"material": -1}, {"material": "many"}, {"waiting": 1 << 70}], ids=str)
def test_what_is_no_status_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Told.read(WHOLE.facts() | changes)


@pytest.mark.parametrize("name", Told.__dataclass_fields__)
def test_nothing_may_be_missing(name: str) -> None:
    facts = WHOLE.facts()
    del facts[name]
    with pytest.raises(KeyError):
        Told.read(facts)
    for other in (None, [], "text", 3):
        with pytest.raises(TypeError):
            Told.read(other)


def test_a_party_tells_what_holds_now() -> None:
    status, jobs = Status(), Jobs(3)
    assert told(MODEL, jobs, status, Unaudited()) == Told(__version__, FORMAT, MODEL, "", "starting", 0, 0, None)
    status.set_ready()
    status.running, status.epoch, status.material = lambda: 2, lambda: "0123456789abcdef" * 2, 7
    jobs.waiting = lambda: 5  # type: ignore[method-assign]
    found = told(MODEL, jobs, status, Unaudited())
    assert found == Told(__version__, FORMAT, MODEL, "01234567", "", 5, 2, 7)
    assert Told.read(found.facts()) == found


def test_no_address_and_no_path_is_told() -> None:
    """Those are in the reason, which is the operator's."""
    status = Status()
    status.set_not_ready("cannot reach 10.0.0.3:9440", "another role does not answer or has hung up")
    assert told(MODEL, Jobs(3), status, Unaudited()).problem == "another role does not answer or has hung up"
    assert "10.0.0.3" in status.reason
    status.set_ready()
    audit: Any = SimpleNamespace(problem="/var/audit: No space left on device")
    assert told(MODEL, Jobs(3), status, audit).problem == UNAUDITED


def test_the_end_is_told_whatever_else_holds() -> None:
    status = Status()
    status.set_ready()
    status.set_ending()
    status.set_ready()
    status.set_not_ready("a", "b")
    assert status.reason == status.told == "shutting down"
