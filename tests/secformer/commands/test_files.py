"""Every option that names a file or a folder: what is refused, and that the error says which, where and what to do."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from commands_lab import complaint

import secformer.cli
from secformer import demo_model
from secformer.commands import files
from secformer.commands.files import folder, lines, new_folder, readable, text_of, writable
from secformer.mpc.errors import InputError

MODEL = str(demo_model())
OWN = ("--text-columns", "a", "--label-column", "b")
READ = [  # an option whose file is read, in a command that is otherwise right; {} is the path
    ("infer", MODEL, "--pairs", "{}"), ("infer", MODEL, "text", "--profile", "{}"),
    ("check", MODEL, "--pairs", "{}"), ("check", MODEL, "text", "--profile", "{}"),
    ("compare", MODEL, "--pairs", "{}"), ("profile", MODEL, "--texts", "{}"),
    ("query", "text", "--settings", "{}"), ("query", "--settings", __file__, "--pairs", "{}"),
    ("provision", MODEL, "--out", "new", "--profile", "{}"), ("dealer", "--settings", "{}"),
    ("token", "--settings", "{}"), ("epoch", "rotate", "--settings", "{}"),
    ("party", "--settings", "{}"), ("deal", "--count", "1", "--lengths", "8", "--settings", "{}"),
    ("finetune", MODEL, *OWN, "--out", "new", "--dev", __file__, "--train", "{}"),
    ("finetune", MODEL, *OWN, "--out", "new", "--train", __file__, "--dev", "{}"),
    ("distill", MODEL, *OWN, "--out", "new", "--dev", __file__, "--train", "{}"),
    ("distill", MODEL, *OWN, "--out", "new", "--train", __file__, "--dev", "{}"),
    ("evaluate", MODEL, *OWN, "--dev", "{}"),
    *((name, MODEL, "--pairs", "{}") for name in ("embed", "classify", "entities", "fill-mask", "answer")),
    *((name, MODEL, "text", "text", "--profile", "{}")
      for name in ("embed", "rerank", "classify", "entities", "fill-mask", "answer")),
    ("page", "new", "--settings", "{}"),
    ("batch", __file__, "o.csv", "--task", "embed", "--cells", "{}"),
    ("generate", MODEL, "text", "--profile", "{}"), ("chat", MODEL, "--profile", "{}"),
    ("score", MODEL, "text", "--profile", "{}"),
    ("cells", "status", "--cells", "{}"),
    *(("gateway", "--settings", __file__, name, "{}") for name in ("--certificate", "--key", "--api-key-file")),
]
FOLDERS = [  # an option whose folder is read
    ("finetune", MODEL, "--out", "new", "--task", "sst2", "--data", "{}"),
    ("distill", MODEL, "--out", "new", "--task", "sst2", "--data", "{}"),
    ("evaluate", MODEL, "--task", "sst2", "--data", "{}"), ("certify", "role", "{}"),
]
WRITTEN = [("compare", MODEL, "text", "--html", "{}"), ("profile", MODEL, "--texts", __file__, "--out", "{}")]
MADE = [
    ("provision", MODEL, "--out", "{}"), ("up", MODEL, "--folder", "{}"), ("init", "{}"),
    ("page", "{}", "--settings", __file__),
    ("finetune", MODEL, *OWN, "--train", __file__, "--dev", __file__, "--out", "{}"),
    ("distill", MODEL, *OWN, "--train", __file__, "--dev", __file__, "--out", "{}"),
]


ELSEWHERE = {  # tried in the tests of their commands
    ("revoke", "DIR"), ("query", "--receipt"), ("audit", "--authority"),
}


def option_of(command: tuple[str, ...]) -> str:
    before = command[command.index("{}") - 1]
    return before if before.startswith("--") else "DIR"


def refused(command: tuple[str, ...], path: Path, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command[0] in ("party", "up", "gateway"):
        pytest.importorskip("starlette", reason="needs the extra `serve`")
    role = ["party0"] if command[:2] == ("certify", "role") else []
    filled = [str(path) if each == "{}" else each for each in command if each != "role"]
    told = complaint(capsys, *filled, *role)
    assert f"{option_of(command)} {path}" in told and says in told, told
    assert "Errno" not in told and "; " in told, "it does not say what to do"


def test_every_such_option_is_tried_here() -> None:
    declared = set()
    for name, parser in secformer.cli._parser()._subparsers._group_actions[0].choices.items():  # type: ignore[union-attr]
        declared |= {(name, a.option_strings[0] if a.option_strings else "DIR") for a in parser._actions
                     if a.metavar in ("FILE", "DIR")}
    assert declared == {(each[0], option_of(each)) for each in [*READ, *FOLDERS, *WRITTEN, *MADE]} | ELSEWHERE


@pytest.mark.parametrize("command", READ, ids=" ".join)
def test_files_to_read(command: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    refused(command, tmp_path / "gone", "does not exist", capsys)
    refused(command, tmp_path, "is a folder, not a file", capsys)
    refused(command, Path(__file__) / "below", "is not a folder", capsys)
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    refused(command, circle, "a link that leads back to itself", capsys)
    refused(command, tmp_path / ("x" * 300), "longer than a path may be", capsys)
    locked = tmp_path / "locked"
    locked.write_text("text\tother\n", "utf-8")
    locked.chmod(0)
    if not os.access(locked, os.R_OK):  # the administrator may read everything
        refused(command, locked, "may not be used by this user", capsys)


@pytest.mark.parametrize("command", FOLDERS, ids=" ".join)
def test_folders_to_read(command: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    refused(command, tmp_path / "gone", "does not exist", capsys)
    refused(command, Path(__file__), "is not a folder", capsys)


@pytest.mark.parametrize("command", WRITTEN, ids=" ".join)
def test_files_to_write(command: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    refused(command, tmp_path, "is a folder", capsys)
    gone = tmp_path / "gone"
    refused(command, gone / "page", f"the folder {gone} does not exist", capsys)
    assert not gone.exists()


@pytest.mark.parametrize("command", MADE, ids=" ".join)
def test_folders_to_make(command: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("", "utf-8")
    refused(command, file, "is not a folder", capsys)
    refused(command, file / "new" / "newer", "its parent", capsys)
    assert file.read_text("utf-8") == ""


def test_refused_permissions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also for an administrator, who runs the tests of this machine perhaps."""
    asked = []
    monkeypatch.setattr(files.os, "access", lambda path, right: bool(asked.append(right)))
    file = tmp_path / "file"
    file.write_text("", "utf-8")
    for check, path in ((lambda p: readable(p, "--o", "w"), file), (lambda p: folder(p, "--o", "w"), tmp_path),
                        (lambda p: writable(p, "--o"), file), (lambda p: new_folder(p, "--o"), tmp_path)):
        with pytest.raises(InputError, match=r"--o .* may not be used by this user; "):
            check(str(path))
    assert asked == [os.R_OK, os.R_OK | os.X_OK, os.W_OK, os.W_OK | os.X_OK]


def test_what_is_fine_passes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one\r\n\n \nzwei ü\n", "utf-8")
    readable(str(file), "--o", "")
    folder(str(tmp_path), "--o", "")
    writable(str(file), "--o")
    writable(str(tmp_path / "new"), "--o")
    new_folder(str(tmp_path), "--o")
    new_folder(str(tmp_path / "a" / "b"), "--o")
    for left_out in (readable, folder):
        left_out(None, "--o", "")
    writable(None, "--o")
    new_folder(None, "--o")
    assert lines(str(file), "--o") == ["one", "zwei ü"] and not (tmp_path / "a").exists()


def test_texts_that_are_not_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes(b"fine\n\xc3\xbc ab\xff\n")
    with pytest.raises(InputError, match=r"--texts .*texts.txt is not UTF-8 text: line 2 has the byte 0xFF at byte 5 .*"
                                         r"convert it to UTF-8"):
        lines(str(file), "--texts")
    file.write_bytes(b"\n \n")
    with pytest.raises(InputError, match=r"--texts .* holds no text; give a UTF-8 file with one text per line"):
        lines(str(file), "--texts")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """As shells make them: --pairs <(command)."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: Path(pipe).write_text("a\tb\n", "utf-8"), daemon=True)
    writer.start()
    readable(pipe, "--pairs", "")
    assert text_of(pipe, "--pairs", "") == "a\tb\n"
    writer.join()
