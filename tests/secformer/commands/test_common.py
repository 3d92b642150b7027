"""What all commands need: texts from arguments, files and standard input, and results as tables or JSON."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

import pytest

from secformer.commands.common import WIDTH, Commands, inputs, show, texts_of
from secformer.mpc.errors import InputError


def given(texts: list[str] | None = None, pairs: str | None = None) -> argparse.Namespace:
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


def test_texts_that_are_not_utf_8_are_told_by_number_and_place(monkeypatch: pytest.MonkeyPatch,
                                                               tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"text 1 is not valid UTF-8: character 3 .* 0xE9"):
        texts_of(["fine", "caf\udce9"])  # how Python passes such an argument
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\nb\udcff\n"))  # in the locale C
    with pytest.raises(InputError, match=r"line 2 of standard input is not valid UTF-8: character 1 .* 0xFF"):
        texts_of(["-"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\nab\xff\n"), "utf-8"))
    with pytest.raises(InputError, match=r"standard input is not UTF-8 text: line 2 has the byte 0xFF at byte 2"):
        texts_of(["-"])
    file = tmp_path / "pairs.tsv"
    file.write_bytes(b"a\tb\nc\t\xc3")
    with pytest.raises(InputError, match=r"--pairs .*pairs.tsv is not UTF-8 text: line 2 has the byte 0xC3 at byte 2"):
        inputs(given(pairs=str(file)))


def test_lines_of_standard_input_end_at_line_ends_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\u2028still one\r\ntwo\x0b\n"))
    assert texts_of(["-"]) == ["one\u2028still one", "two\x0b"]


def test_output_that_cannot_hold_a_character(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a path that is not UTF-8, or an output that is ASCII."""
    for encoding, text in (("utf-8", "a\udcff"), ("ascii", "ü")):
        for as_json in (True, False):
            raw = io.BytesIO()
            monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
            show(argparse.Namespace(json=as_json), {"path": text}, text)
            sys.stdout.flush()
            found = raw.getvalue().decode(encoding)
            if as_json:
                assert json.loads(found) == {"path": text}
            else:
                assert found.strip().endswith({"utf-8": "a\\udcff", "ascii": "\\xfc"}[encoding])


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
