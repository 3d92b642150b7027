"""The notebooks of `examples/`: every code cell runs, in order, and the secure answer is the plaintext one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tree import ROOT

FOLDER = ROOT / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TASKS = {"classify", "embed_and_search", "entities", "fill_mask", "generate", "question_answering", "rerank"}
NEAR = 0.01  # a score or a log-probability, secure and in plaintext


def cells(notebook: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(notebook.read_text("utf-8"))["cells"]
    return found


def code(notebook: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in cells(notebook) if cell["cell_type"] == "code"]


def test_every_task_has_a_notebook() -> None:
    assert {notebook.stem for notebook in NOTEBOOKS} == TASKS
    using = (ROOT / "docs/using.md").read_text("utf-8")
    assert not [name for name in TASKS if f"../examples/{name}.ipynb" not in using]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_that_a_run_left_is_kept(notebook: Path) -> None:
    whole = json.loads(notebook.read_text("utf-8"))
    assert (whole["nbformat"], set(whole["metadata"])) == (4, {"kernelspec", "language_info"})
    ids = [cell["id"] for cell in whole["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in whole["cells"]:
        assert cell["metadata"] == {} and cell.get("outputs", []) == [] and cell.get("execution_count") is None


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                 capsys: pytest.CaptureFixture[str]) -> None:
    for variable in [name for name in os.environ if name.startswith("SECFORMER_")]:
        monkeypatch.delenv(variable)
    monkeypatch.syspath_prepend(str(FOLDER))  # Jupyter runs a notebook in its folder
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    there: dict[str, Any] = {"__name__": "__main__"}
    try:
        for i, source in enumerate(code(notebook)):
            exec(compile(source, f"{notebook.name}, code cell {i}", "exec"), there)
    finally:
        for name in ("tiny", "parties"):
            sys.modules.pop(name, None)
    printed = capsys.readouterr().out
    assert 0.0 <= there["difference"] < NEAR
    assert "party 0 sees" in printed and "party 1 sees" in printed and "MB between the parties" in printed
    line = next(line for line in printed.splitlines() if "the sum is" in line)
    assert sorted(line.split()[3:]) == ["0", "0", "1"], "the first token is not the first word, nor the last"
    if notebook.stem != "embed_and_search":
        secure, exact = there["secure"], there["exact"]
        assert told(secure) == told(exact) != []


def told(answer: Any) -> list[Any]:
    """What an answer says, without its numbers."""
    several = answer if isinstance(answer, list) else [answer]
    return [getattr(each, name) for each in several for name in ("label", "text", "token_str", "corpus_id", "tokens")
            if hasattr(each, name)]
