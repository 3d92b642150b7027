"""The command line, mostly as a real process: help, exit codes, JSON, and the shipped model."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint
from tree import but_the_notice

import secformer
from secformer.cli import main

COMMANDS = ("demo", "infer", "check", "profile", "papers")


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "secformer", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=300)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command prints as JSON, run in this process."""
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that ends with exit code 1."""
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("secformer: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("encoder"), "BertModel")


# ---- help and usage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_teaches(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    text = capsys.readouterr().out
    assert left.value.code == 0
    assert "secformer " + (arguments[0] if len(arguments) > 1 else "demo") in text and "example" in text + "example: s"
    assert max(map(len, text.splitlines())) <= 120


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, secformer, secformer.cli\n"
        "try: secformer.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'transformers', 'numba', 'torch', 'rich', 'cupy', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"secformer {secformer.__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["infer"], ["infer", "folder"], ["profile", "folder"],
                                       ["infer", "folder", "a text", "--pairs", "file"], ["demo", "--recpie", "x"],
                                       ["infer", "folder", "text", "--embedding", "public"]], ids=" ".join)
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_missing_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert str(tmp_path / "no") in complaint(capsys, "infer", str(tmp_path / "no"), "text")


def test_unknown_recipe_and_backend(capsys: pytest.CaptureFixture[str]) -> None:
    assert "faithful" in complaint(capsys, "demo", "text", "--recipe", "fathful")
    assert "numpy" in complaint(capsys, "demo", "text", "--backend", "nunpy")


def test_gpu_asked_for_and_absent(capsys: pytest.CaptureFixture[str]) -> None:
    from secformer.mpc.backend import choose_backend
    from secformer.mpc.errors import BackendUnavailable

    try:
        choose_backend("cupy")
    except BackendUnavailable:
        assert "cupy" in complaint(capsys, "demo", "text", "--backend", "cupy")
    else:
        pytest.skip("a GPU is here")


@pytest.mark.parametrize(("content", "says"), [
    (b"", "no text"), (b"one column\n", "1 column"), (b"a\tb\nc\td\te\n", "line 2 has 3 col"), (b"a\t\xff\n", "UTF-8"),
])
def test_bad_pairs_file(content: bytes, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_bytes(content)
    assert says in complaint(capsys, "infer", "folder", "--pairs", str(file))


def test_missing_files(capsys: pytest.CaptureFixture[str], encoder: Path, tmp_path: Path) -> None:
    assert "gone.tsv" in complaint(capsys, "infer", str(encoder), "--pairs", str(tmp_path / "gone.tsv"))
    assert "gone.txt" in complaint(capsys, "profile", str(encoder), "--texts", str(tmp_path / "gone.txt"))
    assert "gone.json" in complaint(capsys, "infer", str(encoder), "cat", "--profile", str(tmp_path / "gone.json"))


def test_empty_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n \n"))
    assert "no text" in complaint(capsys, "demo", "-")


def test_too_long(capsys: pytest.CaptureFixture[str], encoder: Path) -> None:
    long = "cat " * 100
    assert "truncation" in complaint(capsys, "infer", str(encoder), long)
    assert answer(capsys, "infer", str(encoder), long, "--truncation")["texts"] == [long]


def test_debug_shows_the_traceback() -> None:
    for arguments in (["--debug", "infer", "nowhere", "text"], ["infer", "nowhere", "text", "--debug"]):
        done = run(*arguments)
        assert done.returncode == 1 and "Traceback" in done.stderr and done.stdout == ""


def test_defects_are_told_in_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("two lines\nof text")

    monkeypatch.setattr(secformer, "secure_bert", broken)
    assert "ZeroDivisionError: two lines of text" in complaint(capsys, "demo", "text")


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_ctrl_c() -> None:
    """Interrupted in the middle of a run: exit code 130, one line, no traceback, and soon."""
    texts = ["a film that never ends " * 20] * 400
    command = [sys.executable, "-m", "secformer", "demo", *texts]
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # background jobs inherit it ignored
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **heed) as process:
        time.sleep(6)
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out, but_the_notice(err)) == (130, "", "secformer: interrupted\n")


# ---- what the commands say -------------------------------------------------------------------------------------------


def test_demo_on_the_shipped_model() -> None:
    done = run("demo", "A wonderful film.", "-", stdin="A dull and lifeless mess.\n\n")
    assert (done.returncode, but_the_notice(done.stderr)) == (0, "")
    for word in ("positive", "negative", "plaintext", "rounds", "dealer MB", "softmax", "A wonderful film."):
        assert word in done.stdout


def test_demo_json(capsys: pytest.CaptureFixture[str]) -> None:
    data = answer(capsys, "demo", "A wonderful film.", "A dull and lifeless mess.")
    assert data["secure"]["labels"] == data["plaintext"]["labels"] == ["positive", "negative"]
    assert data["max_probability_difference"] < 5e-3
    assert data["secure"]["cost"]["rounds"] > 0 and data["secure"]["cost"]["bytes"] > 0


def test_infer_encoder(capsys: pytest.CaptureFixture[str], encoder: Path) -> None:
    data = answer(capsys, "infer", str(encoder), "the cat sat", "a dog ran", "--recipe", "faithful")
    (embedding, other) = data["embeddings"]
    assert len(embedding) == len(other) and data["texts"] == ["the cat sat", "a dog ran"]
    assert main(["infer", str(encoder), "the cat sat", "--embedding", "client", "--progress"]) == 0
    assert "embedding" in capsys.readouterr().out


@pytest.mark.parametrize(("architecture", "field", "shown"), [
    ("BertForSequenceClassification", "labels", "label"), ("BertForTokenClassification", "labels", "label"),
    ("BertForQuestionAnswering", "start_logits", "start token"), ("BertForMaskedLM", "logits", "logits"),
])
def test_infer_heads(architecture: str, field: str, shown: str, capsys: pytest.CaptureFixture[str],
                     tmp_path: Path) -> None:
    folder = str(write_checkpoint(tmp_path, architecture))
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("the cat sat\ton the mat\r\n\na dog\tran\n", "utf-8")
    data = answer(capsys, "infer", folder, "--pairs", str(pairs))
    assert len(data[field]) == 2 and data["texts"] == [["the cat sat", "on the mat"], ["a dog", "ran"]]
    assert main(["infer", folder, "the cat sat"]) == 0
    assert shown in capsys.readouterr().out


def test_profile_then_check(capsys: pytest.CaptureFixture[str], encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(encoder, tmp_path / "model")
    texts = tmp_path / "texts.txt"
    texts.write_text("the cat sat on the mat\na dog ran\nnot a very good film !\n", "utf-8")
    written = answer(capsys, "profile", str(folder), "--texts", str(texts))
    assert Path(written["path"]).parent == folder and Path(written["path"]).is_file() and written["texts"] == 3
    report = answer(capsys, "check", str(folder), "the cat sat on the mat")
    assert report["within"] and report["profile"] == written["path"] and report["errors"]["last_hidden_state"] < 1e-2
    assert main(["check", str(folder), "the cat sat on the mat"]) == 0
    assert "within" in capsys.readouterr().out


def test_profile_for_another_recipe(capsys: pytest.CaptureFixture[str], encoder: Path, tmp_path: Path) -> None:
    texts, out = tmp_path / "texts.txt", tmp_path / "profile.json"
    texts.write_text("the cat sat on the mat\n", "utf-8")
    arguments = ("profile", str(encoder), "--texts", str(texts), "--out", str(out))
    assert answer(capsys, *arguments, "--recipe", "secformer")["design"] == "secformer"
    assert "secformer" in complaint(capsys, "check", str(encoder), "the cat", "--profile", str(out))


def test_check_tells_what_is_outside(capsys: pytest.CaptureFixture[str], encoder: Path, tmp_path: Path) -> None:
    texts, narrow = tmp_path / "texts.txt", tmp_path / "narrow.json"
    texts.write_text("cat\n", "utf-8")
    assert main(["profile", str(encoder), "--texts", str(texts), "--out", str(narrow)]) == 0
    facts = json.loads(narrow.read_text("utf-8"))
    facts["sites"] = {site: {q: [low, low + (high - low) * 1e-3] for q, (low, high) in quantities.items()}
                      for site, quantities in facts["sites"].items()}
    narrow.write_text(json.dumps(facts), "utf-8")
    capsys.readouterr()
    assert main(["check", str(encoder), "the dog ran , the cat sat !", "--profile", str(narrow), "--json"]) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert not report["within"] and report["violations"] and "range profile" in err


def test_papers(capsys: pytest.CaptureFixture[str]) -> None:
    data = answer(capsys, "papers")
    assert any("SecFormer" in paper["title"] for paper in data["papers"])
    assert main(["papers"]) == 0
    assert "SecFormer" in capsys.readouterr().out
