"""finetune, distill and evaluate on the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from commands_lab import complaint, help_of

from secformer.cli import main
from secformer.models.distill import requirements
from secformer.models.ranges.trained import DESIGNS

WORDS = ["the", "cat", "sat", "on", "film", "was", "it", "very"]


def write_rows(path: Path, count: int, seed: int) -> Path:
    """A TSV of sentences with one telling word."""
    rng = np.random.default_rng(seed)
    lines = ["stars\treview"]
    for _ in range(count):
        label = ("bad", "good")[int(rng.integers(2))]
        lines.append(f"{label}\t{' '.join([*map(str, rng.choice(WORDS, 3)), label])}")
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    write_rows(folder / "train.tsv", 64, 1)
    write_rows(folder / "dev.tsv", 24, 2)
    return ["--train", str(folder / "train.tsv"), "--dev", str(folder / "dev.tsv"), *COLUMNS]


COLUMNS = ["--text-columns", "review", "--label-column", "stars"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("classifier"), "BertForSequenceClassification", prefix="bert.",
                            id2label={"0": "bad", "1": "good"}, label2id={"bad": 0, "good": 1}, labels=2)


@pytest.mark.parametrize("command", ["finetune", "distill", "evaluate"])
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, command)
    assert f"secformer {command} " in text and "--text-columns" in text


def test_help_names_every_design(capsys: pytest.CaptureFixture[str]) -> None:
    """The help is a text of its own, so that it needs no NumPy."""
    words = set(re.findall(r"[a-z0-9_]+(?=:)", help_of(capsys, "distill").partition("--design D")[2]))
    assert set(DESIGNS) <= words


def test_an_unknown_design_is_a_usage_error(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["distill", "m", "--design", "puma", "--out", "o", *data])
    err = capsys.readouterr().err
    assert left.value.code == 2 and "usage" in err
    assert f"--design must be one of {', '.join(DESIGNS)}, got 'puma'" in err


@pytest.mark.parametrize("arguments", [
    ["finetune", "m", "--out", "o"], ["finetune", "m", "--out", "o", "--task", "sst2"],
    ["finetune", "m", "--out", "o", "--task", "sst2", "--data", "d", "--dev", "f"],
    ["distill", "m", "--out", "o", "--dev", "f", *COLUMNS], ["evaluate", "m", "--task", "sst2", "--dev", "f"],
    ["distill", "m", "--design", "puma", "--out", "o"], ["finetune", "m", "--task", "sst2", "--data", "d"],
])
def test_usage(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2 and "usage" in capsys.readouterr().err


def test_training_without_torch_names_the_extra(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before files are read, so that nobody waits for it."""
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name == "torch" else object())
    for command in ("finetune", "distill"):
        said = complaint(capsys, command, "no-such-model", *data, "--out", str(tmp_path / "out"))
        assert "torch" in said and 'pip install "secformer[distill]"' in said
    assert not (tmp_path / "out").exists()


def test_evaluation_needs_no_torch(classifier: Path, data: list[str], capsys: pytest.CaptureFixture[str],
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("torch", "secformer.models.distill.torch_session"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it now fails
    assert main(["evaluate", str(classifier), *data[2:], "--secure", "--limit", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == 5 and found["recipe"] == "faithful" and found["label_agreement"] == 1.0
    assert found["plain"] == found["secure"] and set(found["plain"]) == {"accuracy", "f1"}
    assert found["cost"]["rounds"] > 0 and found["max_logit_error"] < 1e-2


def test_evaluation_as_a_table(classifier: Path, data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(classifier), *data[2:], "--limit", "4"]) == 0
    assert "accuracy" in (plain := capsys.readouterr().out) and "secure" not in plain
    assert main(["evaluate", str(classifier), *data[2:], "--limit", "4", "--secure"]) == 0
    out = capsys.readouterr().out
    for word in ("own, 4 examples", "plaintext", "secure, faithful", "same labels: 100.00%", "online, all"):
        assert word in out


def test_evaluation_says_what_is_wrong(classifier: Path, data: list[str], tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str) -> str:
        return complaint(capsys, "evaluate", *arguments)

    assert "has 1 (similarity)" in said(str(classifier), "--task", "stsb", "--data", write_glue(tmp_path, "STS-B"))
    assert "unknown" in said(str(classifier), "--task", "sst2", "--data", write_glue(tmp_path, "SST-2", label="7"))
    assert "tried" in said(str(classifier), "--task", "rte", "--data", str(tmp_path))
    assert "task must be one of" in said(str(classifier), "--task", "sst", "--data", str(tmp_path))
    assert "no column 'text'" in said(str(classifier), *data[2:4], "--text-columns", "text", "--label-column", "stars")
    assert "--limit" in said(str(classifier), *data[2:], "--limit", "0")
    assert "untrained" in said(str(classifier), *data[2:], "--secure", "--recipe", "secformer")
    encoder = write_checkpoint(tmp_path / "encoder")
    assert "fine-tune it first" in said(str(encoder), *data[2:])


def write_glue(folder: Path, name: str, label: str = "1") -> str:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "dev.tsv").write_text(f"sentence1\tsentence2\tlabel\na\tb\t{label}\n", "utf-8")
    return str(folder)


def test_the_whole_way(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From an encoder to a student that runs securely, each step a command."""
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    encoder, teacher, student = (str(tmp_path / name) for name in ("encoder", "teacher", "student"))
    write_checkpoint(Path(encoder), scale=0.4)
    small = ["--batch", "8", "--threads", "1", "--rate", "1e-2"]

    def answer(*arguments: str) -> Any:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    taught = answer("finetune", encoder, *data, "--out", teacher, "--epochs", "8", "--train-words", *small)
    assert taught["dev"]["accuracy"] > 0.9 and taught["task"] == "own"
    made = answer("distill", teacher, "--design", "secformer", *data, "--out", student, "--inner-epochs", "4",
                  "--inner-rate", "2e-3", "--epochs", "2", "--float16", *small[:4])
    assert made["dev"]["accuracy"] > 0.9
    found = answer("evaluate", student, *data[2:], "--secure", "--limit", "12")
    assert found["recipe"] == "secformer" and found["label_agreement"] == 1.0 and not found["notes"]
    assert "distilled for the functions of 'secformer'" in complaint(capsys, "infer", student, "a cat", "--recipe",
                                                                     "faithful")
    assert "already holds a model" in complaint(capsys, "distill", teacher, *data, "--out", student)
