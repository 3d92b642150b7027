"""The command line as a whole: help, usage, exit codes, errors in one line. `commands` has what single ones do."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint
from commands_lab import answer, complaint, help_of, run
from tree import but_the_notice

import secformer
from secformer.cli import main

COMMANDS = ("demo", "infer", "check", "compare", "profile", "papers", "embed", "rerank", "classify", "entities",
            "fill-mask", "answer", "generate", "chat", "score", "finetune", "distill", "evaluate", "init",
            "certify", "provision", "dealer", "party", "deal", "up", "query", "gateway", "batch")
WRONG: tuple[list[str], ...] = (
    [], ["nothing"], ["infer"], ["infer", "folder"], ["profile", "folder"],
    ["infer", "folder", "a text", "--pairs", "file"], ["demo", "--recpie", "x"],
    ["embed", "folder"], ["rerank", "folder", "a query"], ["answer", "folder", "a question"], ["answer", "folder"],
    ["classify", "folder", "text", "--top-k", "few"], ["generate", "folder"], ["score", "folder"],
    ["chat", "folder", "--public-prefix", "system"], ["generate", "folder", "text", "--temperature", "hot"],
    ["infer", "folder", "text", "--embedding", "public"], ["distill", "m", "--design", "puma", "--out", "o"],
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("encoder"), "BertModel")


# ---- help and usage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_teaches(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, *arguments[:-1])
    assert "secformer " + (arguments[0] if len(arguments) > 1 else "demo") in text and "example" in text + "example: s"


def test_help_and_usage_errors_import_nothing_heavy() -> None:
    """Whoever asks for help, or mistypes, does not wait for NumPy."""
    program = (
        "import sys, secformer, secformer.cli\n"
        f"for arguments in {[['--help'], *([name, '--help'] for name in COMMANDS), *WRONG]!r}:\n"
        "    try: secformer.cli.main(arguments)\n"
        "    except SystemExit: pass\n"
        "    else: sys.exit(f'{arguments} ran')\n"
        "heavy = {'numpy', 'transformers', 'numba', 'torch', 'rich', 'cupy', 'safetensors', 'cryptography'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"secformer {secformer.__version__}\n")


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
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

    monkeypatch.setattr(secformer, "secure_model", broken)
    assert "ZeroDivisionError: two lines of text" in complaint(capsys, "demo", "text")


def test_ctrl_c_inside_an_exec(tmp_path: Path) -> None:
    """Such as those that make dataclasses: `python -m` must still leave with 130, and not by the signal."""
    (tmp_path / "interrupted.py").write_text(
        "import sys, secformer, secformer.cli\n"
        "secformer.secure_model = lambda *_, **__: exec('raise KeyboardInterrupt')\n"
        "sys.exit(secformer.cli.main(['demo', 'text']))\n")
    path = os.pathsep.join([str(tmp_path), *(os.path.abspath(each) for each in sys.path)])
    done = subprocess.run([sys.executable, "-m", "interrupted"], capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": path})
    assert (done.returncode, done.stderr) == (130, "secformer: interrupted\n")


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


def test_bytes_that_are_not_utf_8(encoder: Path) -> None:
    """From a shell of another encoding: as an argument, and on standard input in two locales."""
    command = [sys.executable, "-m", "secformer", "infer", str(encoder)]
    for locale, given, says in (("C.UTF-8", [b"caf\xe9"], "text 0 is not valid UTF-8: character 3"),
                                ("C.UTF-8", ["-"], "standard input"), ("C", ["-"], "standard input")):
        done = subprocess.run([*command, *given], input=b"fine\ncaf\xe9\n", capture_output=True, check=False,
                              env=os.environ | {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
        told = done.stderr.decode()
        assert (done.returncode, done.stdout) == (1, b"") and told.startswith("secformer: error: "), told
        assert says in told and "0xE9" in told and told.count("\n") == 1
        assert given != ["-"] or "line 2" in told
