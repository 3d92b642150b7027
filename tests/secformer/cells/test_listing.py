"""Lists of cells: what is read, and everything that is refused. Cost: less than one second."""

from __future__ import annotations

from pathlib import Path

import pytest
from cells_lab import cells_file, client_file, listed

from secformer.cells.listing import LONGEST_NAME, is_name, load_cells
from secformer.mpc.errors import SettingsError
from secformer.roles.settings import load_client


def refused(path: Path, says: str, content: str | bytes | None = None) -> str:
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=says) as error:
        load_cells(path)
    assert str(path) in str(error.value), "it does not name the file"
    return str(error.value)


def test_a_list_is_read_in_its_order(tmp_path: Path) -> None:
    path = listed(tmp_path, ("zurich", "Berlin-2", "a_1"))
    found = load_cells(str(path))
    assert found.path == path and found.names == ("zurich", "Berlin-2", "a_1") and len(found) == 3
    for cell in found:
        assert cell.settings == tmp_path / cell.name / "client.toml"
        assert cell.client == load_client(cell.settings)
    assert [cell.client.party0[1] for cell in found] == [9000, 9002, 9004]


def test_settings_are_relative_to_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(tmp_path)
    monkeypatch.chdir(tmp_path / "a")
    assert load_cells("../cells.toml").cells[0].client.party0 == ("127.0.0.1", 9000)
    absolute = client_file(tmp_path / "elsewhere", (1, 2))
    assert load_cells(cells_file(tmp_path, {"x": absolute})).cells[0].settings == absolute


def test_one_cell_is_a_list(tmp_path: Path) -> None:
    assert load_cells(listed(tmp_path, ("only",))).names == ("only",)


def test_unknown_cells_are_told_apart(tmp_path: Path) -> None:
    found = load_cells(listed(tmp_path))
    found.require("a")
    with pytest.raises(SettingsError, match=r"cells.toml lists no cell 'c'; its cells are a, b"):
        found.require("c")


@pytest.mark.parametrize("name", ["a", "0", "a" * LONGEST_NAME, "A-b_9"])
def test_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "-a", "_a", "a" * (LONGEST_NAME + 1), "a b", "a\n", "ä", "a/b", "a.b", "\u202ea",
                                  "²", "[red]", None, 1])
def test_names_that_would_surprise(name: object) -> None:
    assert not is_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a" * (LONGEST_NAME + 1), "\u202ea"])
def test_such_a_name_is_refused(tmp_path: Path, name: str) -> None:
    client_file(tmp_path, (1, 2))
    refused(cells_file(tmp_path, {name: "client.toml"}), r"cell 1: name must be 1 to 32 letters, digits, - and _, .*; "
                                                         r"got '")


def test_files_that_are_no_list(tmp_path: Path) -> None:
    path = tmp_path / "cells.toml"
    refused(path, r"cannot read the list of cells .*No such file.*; it has a table \[\[cell\]\]")
    refused(path, r"is not a TOML file", "[[cell]")
    refused(path, r"is not a TOML file", b"\xff")
    refused(path, r"lists no cells; it needs a table \[\[cell\]\] with the keys name and settings", "")
    refused(path, r"lists no cells", "cell = []")
    for given in ('[cell]\nname = "a"\nsettings = "b"', "cell = 1", "cell = [1]", 'cell = [{}, "a"]', "cell = [[]]"):
        refused(path, r"each cell is a table \[\[cell\]\] with the keys name and settings; got cell = ", given)


def test_unknown_keys_are_refused_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "cells.toml"
    refused(path, r"unknown key 'cells': did you mean 'cell'\? The keys are cell", "[[cells]]\nname = 'a'")
    client_file(tmp_path, (1, 2))
    refused(path, r"unknown key cell 2: 'setings': did you mean 'settings'\? The keys are name, settings",
            "[[cell]]\nname = 'a'\nsettings = 'client.toml'\n[[cell]]\nname = 'b'\nsetings = 'client.toml'")


def test_keys_that_are_missing_or_wrong(tmp_path: Path) -> None:
    path = tmp_path / "cells.toml"
    refused(path, r"cell 1 lacks the key 'name'", "[[cell]]\nsettings = 'a'")
    refused(path, r"cell 1 lacks the key 'settings'", "[[cell]]\nname = 'a'")
    refused(path, r"cell 1: name must be .* got 7", "[[cell]]\nname = 7\nsettings = 'a'")
    for value in ('""', "1", "[]", "{}"):
        refused(path, r"cell 'a': settings must be the path of a client's settings file, got ",
                f"[[cell]]\nname = 'a'\nsettings = {value}")


def test_a_settings_file_that_does_not_hold(tmp_path: Path) -> None:
    path = listed(tmp_path)
    (tmp_path / "b" / "client.toml").unlink()
    assert str(tmp_path / "b" / "client.toml") in refused(path, r"cell 'b': cannot read the settings file")
    (tmp_path / "b" / "client.toml").write_text("party0 = 'a:1'")
    refused(path, r"cell 'b': .*client.toml lacks the key 'party1'")


def test_two_cells_of_one_name(tmp_path: Path) -> None:
    path = listed(tmp_path)
    refused(path, r"two cells have the name 'a'; each needs a name of its own",
            path.read_text().replace('name = "b"', 'name = "a"'))


@pytest.mark.parametrize("ports", [(1, 2), (2, 1), (1, 3), (4, 2), (4, 1)])
def test_a_party_belongs_to_one_cell(tmp_path: Path, ports: tuple[int, int]) -> None:
    client_file(tmp_path / "a", (1, 2))
    client_file(tmp_path / "b", (5, 6))
    client_file(tmp_path / "c", ports)
    files = {name: f"{name}/client.toml" for name in "abc"}
    refused(cells_file(tmp_path, files), r"the cells 'a' and 'c' have the same party, 127.0.0.1:[12]; a party belongs "
                                         r"to one cell")


def test_hosts_have_no_case(tmp_path: Path) -> None:
    client_file(tmp_path / "a", (1, 2), party0=("Host", 1))
    client_file(tmp_path / "b", (1, 3), party0=("host", 1))
    refused(cells_file(tmp_path, {"a": "a/client.toml", "b": "b/client.toml"}), r"have the same party, host:1")
