"""The command batch: its options, what it prints, how it ends. The job's workers are threads here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from batch_lab import Instant, cells, read_rows, texts, write_rows
from checkpoints import write_checkpoint
from commands_lab import answer, complaint, help_of

from secformer.batch import driver, job
from secformer.batch.crew import ThreadCrew
from secformer.batch.driver import Progress, Tell
from secformer.batch.job import Job, Summary, run_job
from secformer.batch.tasks import Generate
from secformer.cli import main
from secformer.commands.batch import CHUNK, PATIENCE


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("models") / "model", "BertForSequenceClassification")


@pytest.fixture(scope="module")
def listed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cells(tmp_path_factory.mktemp("lists") / "cells", model)


@pytest.fixture
def given(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.csv", [{"text": text, "n": i} for i, text in enumerate(texts(12))])


def runs(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Summary]) -> None:
    monkeypatch.setattr(job, "run_job", run)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    runs(monkeypatch, partial(run_job, hire=ThreadCrew, opener=Instant(model)))


@pytest.mark.usefixtures("threads")
def test_the_summary_is_all_that_stdout_has(tmp_path: Path, given: Path, listed: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.csv"
    command = ["batch", str(given), str(out), "--cells", str(listed), "--task", "classify", "--keep", "n", "--keep",
               "text", "--chunk", "5"]
    found = answer(capsys, *command)
    assert found["rows"] == found["answered"] == 12 and [cell["name"] for cell in found["cells"]] == ["a", "b"]
    assert list(read_rows(out)[0]) == ["row", "n", "text", "label", "score", "scores", "trusted", "error"]
    assert "exists" in complaint(capsys, *command)
    assert main([*command, "--overwrite"]) == 0
    told = capsys.readouterr()
    assert "written: " in told.out and "rows per second" in told.out and told.err == ""


@pytest.mark.parametrize("options", [
    ("--task", "classify", "--query", "q"), ("--task", "classify", "--document", "d"),
    ("--task", "rerank", "--text", "t"),
    ("--task", "embed", "--temperature", "1"), ("--task", "embed", "--system", "s"), ("--task", "embed", "--continue"),
    ("--task", "answer"), ("--chunk", "5"),
], ids=" ".join)
def test_wrong_usage(options: tuple[str, ...], given: Path, listed: Path) -> None:
    with pytest.raises(SystemExit) as left:
        main(["batch", str(given), "out.csv", "--cells", str(listed), *options])
    assert left.value.code == 2


def test_missing_packages_are_named(given: Path, listed: Path, capsys: pytest.CaptureFixture[str],
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else name)
    told = complaint(capsys, "batch", str(given), "out.csv", "--cells", str(listed), "--task", "embed")
    assert "not installed: ray." in told and "secformer[batch]" in told


def test_options_reach_the_job(given: Path, listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Job] = []

    def noted(work: Job, tell: Tell) -> Summary:
        seen.append(work)
        return Summary(0, 0, 0, 0, 0.0, 0, ())

    runs(monkeypatch, noted)
    start = ["batch", str(given), "out.csv", "--cells", str(listed), "--json", "--quiet", "--task"]
    assert main([*start, "rerank"]) == main([*start, "rerank", "--query", "n", "--document", "m", "--id", "i"]) == 0
    assert main([*start, "embed", "--truncation", "--strict", "--overwrite", "--restart", "--patience", "5", "--ray",
                 "here:1", "--text", "t"]) == 0
    assert main([*start, "generate", "--seed", "5", "--stop", "x", "--temperature", "0.5", "--continue"]) == 0
    assert main([*start, "generate", "--system", "s"]) == 0
    assert [work.columns for work in seen] == [("query", "document"), ("n", "m"), ("t",), ("text",), ("text",)]
    assert (seen[0].chunk, seen[0].patience, seen[0].id) == (CHUNK, PATIENCE, None) and seen[1].id == "i"
    assert (job.CHUNK, job.PATIENCE) == (CHUNK, PATIENCE)
    embed = seen[2]
    assert embed.truncation and embed.strict and embed.overwrite and embed.restart
    assert (embed.patience, embed.ray, seen[1].ray) == (5.0, "here:1", None)
    one, other = seen[3].task, seen[4].task
    assert isinstance(one, Generate) and isinstance(other, Generate)
    assert one.sampling == {"max_new_tokens": 128, "temperature": 0.5, "stop": ["x"]}
    assert (one.seed, one.continued, one.system) == (5, True, None) and (other.seed, other.system) == (0, "s")


def test_an_interrupt_says_how_to_go_on(tmp_path: Path, given: Path, listed: Path, model: Path,
                                        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "TELL", 0.0)

    def interrupted(work: Job, tell: Tell) -> Summary:
        def stop(progress: Progress) -> None:
            tell(progress)
            if progress.rows:
                raise KeyboardInterrupt
        return run_job(work, stop, hire=ThreadCrew, opener=Instant(model))

    runs(monkeypatch, interrupted)
    command = ["batch", str(given), str(tmp_path / "out.csv"), "--cells", str(listed), "--task", "classify", "--chunk",
               "5"]
    assert main(command) == 130
    assert "run the same command again to go on" in capsys.readouterr().err
    runs(monkeypatch, partial(run_job, hire=ThreadCrew, opener=Instant(model)))
    assert answer(capsys, *command)["answered"] < 12


def test_what_a_job_waits_for_is_told(given: Path, listed: Path, capsys: pytest.CaptureFixture[str],
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    def waiting(work: Job, tell: Tell) -> Summary:
        for problem in ("", "a: drained", "a: drained", ""):
            tell(Progress(1, 1, 0.5, 0.0, 1.0, problem))
        return Summary(1, 0, 0, 1, 1.0, 0, ())

    runs(monkeypatch, waiting)
    command = ["batch", str(given), "out.csv", "--cells", str(listed), "--task", "classify", "--json"]
    assert main(command) == 0
    assert capsys.readouterr().err.splitlines() == [
        "secformer: no cell serves now; waiting (a: drained)", "secformer: a cell serves again"]
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_help_names_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert "embed,classify,rerank,entities,generate" in help_of(capsys, "batch")


def test_a_terminal_gets_a_bar(given: Path, listed: Path, capsys: pytest.CaptureFixture[str],
                               monkeypatch: pytest.MonkeyPatch) -> None:
    def half(work: Job, tell: Tell) -> Summary:
        tell(Progress(512, 256, 0.5, 0.25, 8.0, ""))
        return Summary(1, 0, 0, 1, 1.0, 0, ())

    runs(monkeypatch, half)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["batch", str(given), "out.csv", "--cells", str(listed), "--task", "classify", "--json"]) == 0
    told: Any = capsys.readouterr().err
    assert "512 rows" in told and "32.0 rows/s" in told and "0:00:16 left" in told
