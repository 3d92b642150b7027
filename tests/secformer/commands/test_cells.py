"""The command `cells`, as far as it goes without served roles. Cost: about 2 processor seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cells_lab import cells_file, listed
from commands_lab import answer, complaint, help_of

from secformer.cells.drained import drained
from secformer.cli import main
from secformer.commands.cells import MOST_SECONDS
from secformer.roles.certificates import init


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(listed(tmp_path))


def test_drain_and_resume(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "cells", "drain", "b", "--cells", path)
    assert found == {"list": path, "drained": ["b"], "serving": ["a"]} and drained(path) == {"b"}
    assert main(["cells", "drain", "--cells", path, "a"]) == 0
    told = capsys.readouterr().out
    assert "drained: a, b" in told and "get work: none" in told
    assert "Warning: every cell is drained, so nothing is served." in told
    assert main(["cells", "resume", "a", "--cells", path]) == 0
    told = capsys.readouterr().out
    assert "drained: b" in told and "get work: a" in told and "Warning" not in told and drained(path) == {"b"}


def test_names_and_lists_that_do_not_hold(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{path} lists no cell 'c'; its cells are a, b" in complaint(capsys, "cells", "drain", "c", "--cells", path)
    other = tmp_path / "other.toml"
    other.write_text("[[cel]]\n")
    assert "unknown key 'cel': did you mean 'cell'?" in complaint(capsys, "cells", "status", "--cells", str(other))


@pytest.mark.parametrize("arguments", [
    ("status", "a"), ("drain",), ("resume",), ("stop", "a"), ("status", "--seconds", "0"), ("status", "--watch", "-1"),
    ("status", "--watch", "nan"), ("status", "--seconds", str(2 * MOST_SECONDS)), ("drain", "a", "--watch", "1"),
    ("resume", "a", "--seconds", "1"), ("status", "--seconds", "x")], ids=" ".join)
def test_wrong_usage(path: str, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["cells", *arguments, "--cells", path])
    assert left.value.code == 2 and "usage: secformer cells" in capsys.readouterr().err and not drained(path)


def test_the_list_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["cells", "status"])
    assert "--cells" in capsys.readouterr().err
    text = help_of(capsys, "cells")
    assert "{status,drain,resume}" in text and "--watch S" in text and "exit code 1" in text


def test_status_of_cells_that_cannot_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without keys and models, nothing is sent, and each cell says why."""
    path = str(listed(tmp_path))
    assert main(["cells", "status", "--cells", path]) == 1
    out, err = capsys.readouterr()
    assert "cannot be asked" in out and "a: cannot read" in out and "b: cannot read" in out
    assert err == "secformer: error: 2 of 2 cells are not known to be ready: a, b\n"


def test_watching_goes_on_until_ctrl_c(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    path, slept = str(listed(tmp_path)), list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert main(["cells", "status", "--cells", path, "--watch", "7"]) == 130
    out, err = capsys.readouterr()
    assert slept == [7.0] * 3 and out.count("cannot be asked") == 6 and err == "secformer: interrupted\n"


def test_what_was_drained_is_looked_up_each_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path / "a")
    path = str(cells_file(tmp_path, {"a": "a/client/client.toml"}))
    assert main(["cells", "drain", "a", "--cells", path]) == 0
    capsys.readouterr()
    found = answer(capsys, "cells", "status", "--cells", path)
    assert found["ready"] is True and found["notes"] == ["every cell is drained, so nothing is served"]
    assert [(cell["name"], cell["drained"], cell["ready"]) for cell in found["cells"]] == [("a", True, False)]
