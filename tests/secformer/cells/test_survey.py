"""What an overview of cells says: who is missing, and what differs. Cost: about one
processor second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cells_lab import cells_file, clients_model

from secformer.cells.drained import drain, resume
from secformer.cells.health import CellHealth, PartyHealth
from secformer.cells.listing import load_cells
from secformer.cells.survey import Overview, Seen, Survey, _versions
from secformer.mpc.errors import SettingsError
from secformer.roles.certificates import init
from secformer.roles.telling import Told

TOLD = Told("1.0", "s", "ab" * 32, "01234567", "", 0, 0, None)


def seen(name: str, *told: Told, drained: bool = False) -> Seen:
    first, second = (PartyHealth(each, each.problem) for each in told)
    return Seen(name, Path(name), drained, CellHealth((first, second)), "")


def test_who_is_missing() -> None:
    starting = replace(TOLD, problem="starting")
    cells = (seen("a", TOLD, TOLD), seen("b", starting, TOLD), seen("c", starting, starting, drained=True),
             Seen("d", Path("d"), False, None, "no key"))
    assert Overview(cells, ()).missing == ("b", "d")


def test_versions_that_differ_are_pointed_out() -> None:
    newer, other = replace(TOLD, version="1.1"), replace(TOLD, streams="t")
    assert _versions((seen("a", TOLD, TOLD), seen("b", TOLD, TOLD)), "versions", lambda t: t.version) == []
    assert _versions((seen("a", TOLD, TOLD), seen("b", newer, newer)), "versions", lambda t: t.version) == [
        "the parties run different versions: a 1.0, b 1.1"]
    assert _versions((seen("a", TOLD, newer),), "versions", lambda t: t.version) == [
        "the parties run different versions: a 1.0 and 1.1"]
    assert _versions((seen("a", TOLD, other),), "formats of streams", lambda t: t.streams)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of four cells where nobody runs: two alike, one that cuts long texts, and one without a model."""
    folder, files = tmp_path_factory.mktemp("survey"), {}
    for number, name in enumerate("abcd"):
        init(folder / name, ports={"party0": 2 * number + 1, "party1": 2 * number + 2})
        files[name] = f"{name}/client/client.toml"
        if name != "d":
            clients_model(folder / name / "client" / "model")
    settings = folder / files["c"]
    settings.write_text(settings.read_text().replace("# truncation = false", "truncation = true"))
    return cells_file(folder, files)


def test_cells_that_cannot_be_asked_hide_no_others(path: Path) -> None:
    survey = Survey(load_cells(path), 2.0)
    found = survey.look()
    assert [cell.name for cell in found.cells] == list("abcd") and found.missing == tuple("abcd")
    for cell in found.cells[:3]:
        assert cell.health is not None and not cell.health.reached and "does not answer" in cell.problem
    assert found.cells[3].health is None and "public.json" in found.cells[3].problem
    assert len(found.notes) == 1 and found.notes[0].startswith("the cells a and c hold different models: truncation: ")


def test_each_look_sees_what_is_drained_now(path: Path) -> None:
    survey = Survey(load_cells(path), 2.0)
    for name in "abcd":
        drain(path, name)
    found = survey.look()
    assert found.missing == () and all(cell.drained for cell in found.cells)
    assert found.notes[-1] == "every cell is drained, so nothing is served"
    for name in "bcd":
        resume(path, name)
    assert survey.look().missing == tuple("bcd")
    path.with_name(path.name + ".drained").write_text("-\n")
    with pytest.raises(SettingsError, match="does not say which cells are drained"):
        survey.look()
