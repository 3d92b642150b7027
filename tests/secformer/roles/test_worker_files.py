"""Settings files of workers: one role only, no shared folders or addresses, and names that tell cells apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from secformer.mpc.errors import SettingsError
from secformer.roles.certificates import init
from secformer.roles.worker_files import read_workers

PORTS = ("dealer", "link", "party0", "party1", "metrics0", "metrics1", "dealer_metrics")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two cells' folders, of different ports."""
    folder = tmp_path_factory.mktemp("cells")
    for number, name in enumerate("ab"):
        init(folder / name, ports={port: 20000 + 100 * number + i for i, port in enumerate(PORTS)})
    return [folder / "a", folder / "b"]


def files(cells: list[Path], role: str) -> list[Path]:
    return [cell / role / f"{role}.toml" for cell in cells]


def changed(path: Path, tmp_path: Path, **values: str) -> Path:
    """A copy of a settings file beside the original, with other values."""
    lines = [line for line in path.read_text().splitlines()
             if not any(line.startswith(f"{key} =") for key in values)]
    first = next(i for i, line in enumerate(lines) if line.startswith("[") or line.startswith("# PEM"))
    copy = path.parent / f"{tmp_path.name}.toml"
    copy.write_text("\n".join([*lines[:first], *(f"{key} = {value}" for key, value in values.items()), *lines[first:]]))
    return copy


@pytest.mark.parametrize("role", ["dealer", "party0", "party1"])
def test_one_role_of_several_cells(cells: list[Path], role: str, tmp_path: Path) -> None:
    one, two = files(cells, role)
    copy = tmp_path / "other.toml"
    found = read_workers([one, two])
    assert [worker.role for worker in found] == [role, role]
    assert [worker.cell for worker in found] == ["a", "b"], "the first folders that differ"
    copy.write_bytes(two.read_bytes())
    assert [worker.cell for worker in read_workers([one, copy])] == [role, "other"]
    assert [worker.cell for worker in read_workers([one])] == [role]


@pytest.mark.parametrize(("first", "second"), [("dealer", "party0"), ("party0", "party1"), ("party1", "dealer")])
def test_two_roles_are_refused_with_the_reason(cells: list[Path], first: str, second: str) -> None:
    """Of one cell, and of two: a machine that runs two roles runs both for whoever puts them there next."""
    for cell in cells:
        with pytest.raises(SettingsError, match="Whoever runs two roles of a cell in one place"):
            read_workers([files(cells, first)[0], cell / second / f"{second}.toml"])


@pytest.mark.parametrize("role", ["dealer", "party0", "party1"])
def test_a_file_twice(cells: list[Path], role: str) -> None:
    one, two = files(cells, role)
    with pytest.raises(SettingsError, match=r"both use the folder .*state \(state and state\)"):
        read_workers([one, two, one])


@pytest.mark.parametrize(("role", "key", "value", "problem"), [
    ("dealer", "state", '"{other}/state"', "folder"), ("party1", "store", '"{other}/store"', "folder"),
    ("party1", "audit_folder", '"{other}/audit"', "folder"), ("party1", "state", '"{other}/audit"', "folder"),
    ("dealer", "listen", '"0.0.0.0:20000"', "20000"), ("dealer", "metrics", '"127.0.0.1:20006"', "20006"),
    ("party0", "clients", '"0.0.0.0:20002"', "20002"), ("party0", "link", '"0.0.0.0:20001"', "20001"),
    ("party1", "link", '"127.0.0.1:20001"', "20001"), ("party0", "metrics", '"127.0.0.1:20002"', "20002"),
])
def test_what_two_workers_would_share(cells: list[Path], tmp_path: Path, role: str, key: str, value: str,
                                      problem: str) -> None:
    one, two = files(cells, role)
    other = changed(two, tmp_path, **{key: value.format(other=one.parent)})
    with pytest.raises(SettingsError, match=rf"both use .*{problem}.*{key}\); .* of its own"):
        read_workers([one, other])
    assert read_workers([other])


def test_port_0_and_no_metrics_are_shared_by_nobody(cells: list[Path], tmp_path: Path) -> None:
    one, two = files(cells, "dealer")
    free = {"listen": '"127.0.0.1:0"', "metrics": '""'}
    assert len(read_workers([changed(one, tmp_path, **free), changed(two, tmp_path, **free)])) == 2


def test_other_files(cells: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"not the settings file of a dealer, .* nor of a party"):
        read_workers([cells[0] / "client" / "client.toml"])
    with pytest.raises(SettingsError, match="cannot read the settings file"):
        read_workers([tmp_path / "missing.toml"])
    for text, problem in (("rank = 7\n", "rank must be"), ("rank = [", "not a TOML file"),
                          ("listen = 1\n", "listen must be")):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(SettingsError, match=problem):
            read_workers([tmp_path / "bad.toml"])
