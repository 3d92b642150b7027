"""The tables of `secformer cells`: every health in few words, and whole reasons below."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from secformer.cells.health import CellHealth, PartyHealth
from secformer.cells.survey import Overview, Seen
from secformer.roles.telling import Told
from secformer.views.cells import status, status_json

TOLD = Told("1.0", "s", "ab" * 32, "01234567", "", 3, 2, None)
READY, UNTOLD = PartyHealth(TOLD), PartyHealth()
STORED = PartyHealth(replace(TOLD, material=40, waiting=5, running=1))
STARTING = PartyHealth(replace(TOLD, problem="starting", epoch=""), "starting")
GONE = PartyHealth(problem="party0 at [::1]:1 does not answer", reached=False)


def seen(*parties: PartyHealth, drained: bool = False, problem: str | None = None) -> Seen:
    health = CellHealth((parties[0], parties[1])) if parties else None
    return Seen("berlin", Path("b.toml"), drained, health,
                problem if problem is not None else health.problem if health else "")


def shown(cell: Seen, *notes: str) -> str:
    console = Console(width=120, file=(output := io.StringIO()))
    console.print(status(Overview((cell,), notes)))
    return output.getvalue()


@pytest.mark.parametrize(("cell", "health"), [
    (seen(READY, STORED), " ready "), (seen(READY, UNTOLD), " not told "), (seen(STARTING, UNTOLD), " not ready "),
    (seen(READY, GONE), " party 1 unreachable "), (seen(GONE, STARTING), " party 0 unreachable "),
    (seen(GONE, GONE), " unreachable "), (seen(problem="no key"), " cannot be asked "),
    (seen(READY, READY, drained=True), " drained (ready) "),
    (seen(GONE, GONE, drained=True), " drained (unreachable) "),
])
def test_health_in_few_words(cell: Seen, health: str) -> None:
    text = shown(cell)
    assert health in text
    assert ("berlin: " in text) == bool(cell.problem) and cell.problem in text


def test_what_waits_and_runs_and_is_stored() -> None:
    row = next(line for line in shown(seen(READY, STORED)).splitlines() if "berlin" in line)
    assert [each.strip() for each in row.strip("│ ").split("│")] == [
        "berlin", "ready", "3/2", "5/1", "40", "1.0", "01234567"]
    row = next(line for line in shown(seen(UNTOLD, STARTING)).splitlines() if "berlin" in line)
    assert [each.strip() for each in row.strip("│ ").split("│")] == [
        "berlin", "not ready", "-", "3/2", "-", "1.0", "-"]
    newer = PartyHealth(replace(TOLD, version="1.1", material=0))
    assert "1.0 and 1.1" in shown(seen(READY, newer)) and "│ 0 " in shown(seen(READY, newer))


def test_markup_in_reasons_is_text() -> None:
    assert "[bold]x[/bold]" in shown(seen(problem="[bold]x[/bold]")) and "Note: [red]." in shown(seen(), "[red]")


def test_json_has_everything() -> None:
    found = status_json(Overview((seen(READY, STORED), seen(STARTING, GONE), seen(problem="no key")), ("a",)))
    first, second, third = found["cells"]
    assert found["ready"] is False and found["notes"] == ["a"]
    assert first["ready"] and first["parties"][1]["told"]["material"] == 40 and first["problem"] == ""
    assert [(p["reached"], p["ready"], p["told"] is None) for p in second["parties"]] == [
        (True, False, False), (False, False, True)]
    assert third["parties"] == [] and third["problem"] == "no key"
    assert status_json(Overview((seen(READY, READY),), ()))["ready"] is True
