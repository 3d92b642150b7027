"""What all commands need: texts from arguments, files and standard input, and results as tables or JSON."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

import pytest

from secformer.commands.common import WIDTH, Commands, inputs, lines, show, texts_of
from secformer.mpc.errors import InputError


def given(texts: list[str] | None = None, pairs: str = "") -> argparse.Namespace:
    return argparse.Namespace(texts=texts or [], pairs=pairs, usage=argparse.ArgumentParser(prog="x").error)


def test_a_dash_stands_for_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("two\n\n  \nthree\n"))
    assert texts_of(["one", "-", "four"]) == ["one", "two", "three", "four"]
    assert texts_of([]) == []
    with pytest.raises(InputError, match="no text"):
        texts_of(["-"])  # it was read to its end


def test_texts_or_pairs_but_not_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("a question\ta passage\r\n\nb\tc\n", "utf-8")
    assert inputs(given(["a", "b"])) == ["a", "b"]
    assert inputs(given(pairs=str(file))) == [("a question", "a passage"), ("b", "c")]
    for both in (given(), given(["a"], str(file))):
        with pytest.raises(SystemExit) as left:
            inputs(both)
        assert left.value.code == 2 and "--pairs FILE" in capsys.readouterr().err


def test_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes("one\r\n\n \nzwei ü\n".encode())
    assert lines(file) == ["one", "zwei ü"]
    file.write_bytes(b"\n")
    with pytest.raises(InputError, match="holds no text; write one text per line"):
        lines(file)
    file.write_bytes(b"fine\n\xff\n")
    with pytest.raises(InputError, match=r"not UTF-8 text .* at byte 5"):
        lines(file)


def test_a_result_is_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    show(argparse.Namespace(json=True), {"text": "ü"}, "the table")
    assert json.loads(out := capsys.readouterr().out) == {"text": "ü"} and "ü" in out
    show(argparse.Namespace(json=False), {}, "x" * (WIDTH + 1))
    assert capsys.readouterr().out.splitlines() == ["x" * WIDTH, "x"]
    with pytest.raises(ValueError, match="JSON"):
        show(argparse.Namespace(json=True), {"not a number": float("nan")}, "")


def test_a_declared_command_is_called_with_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    parser, ran = argparse.ArgumentParser(prog="x"), []
    commands = Commands(parser)
    commands.add("do", ran.append, "does it", "Does it.\n\nexample:\n  x do --json\n")
    commands.add("serve", ran.append, "serves", "Serves.", json=False)
    args = parser.parse_args(["do", "--json", "--debug"])
    args.command(args)
    assert ran == [args] and args.json and args.debug
    with pytest.raises(SystemExit):
        parser.parse_args(["serve", "--json"])
    with pytest.raises(SystemExit):
        parser.parse_args(["do", "--help"])
    text = capsys.readouterr().out
    assert text.index("Does it.") < text.index("print JSON") < text.index("  x do --json")
