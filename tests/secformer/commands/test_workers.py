"""`secformer workers`: what is refused before anything starts. What it runs is tested with its supervisor."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands_lab import complaint

from secformer.cli import main
from secformer.roles.certificates import init


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    init(folder := tmp_path_factory.mktemp("cell") / "roles")
    return folder


def file(cell: Path, role: str) -> str:
    return str(cell / role / f"{role}.toml")


@pytest.mark.parametrize(("arguments", "problem"), [
    (("--cores", "1", "--pin", "0"), "--cores or --pin, not both"), (("--ending", "0"), "more than 0 seconds"),
    (("--ending", "nan"), "more than 0 seconds"),
])
def test_wrong_usage(cell: Path, arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["workers", file(cell, "dealer"), *arguments])
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "problem"), [
    (("--cores", "0"), "--cores must be at least 1"), (("--cores", "100000"), "must fit the"),
    (("--pin", "0,0"), "has 2 part"), (("--pin", "x"), "takes cores and ranges"),
])
def test_cores_that_cannot_be(cell: Path, arguments: tuple[str, ...], problem: str,
                              capsys: pytest.CaptureFixture[str]) -> None:
    assert problem in complaint(capsys, "workers", file(cell, "dealer"), *arguments)


def test_roles_are_not_mixed(cell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = complaint(capsys, "workers", file(cell, "party0"), file(cell, "party1"))
    assert "party 0's file" in told and "party 1's" in told and "two roles of a cell in one place" in told
