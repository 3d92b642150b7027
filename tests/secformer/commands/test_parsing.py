"""Options and positionals in every order, `--`, and texts that begin with a dash."""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import pytest

import secformer.cli
from secformer.commands.parsing import MARK, CommandParser

COMMANDS = {  # commands that take texts, each with its positionals before the texts, and its required options
    "demo": ([], []), "infer": (["folder"], []), "check": (["folder"], []), "compare": (["folder"], []),
    "query": ([], [["--settings", "c.toml"]]),
}
OPTIONS = {"demo": ["--backend", "numpy"], "infer": ["--profile", "p.json"], "check": ["--profile", "p.json"],
           "compare": ["--runs", "3"], "query": ["--progress"]}


def parsed(*arguments: str) -> dict[str, Any]:
    found = vars(secformer.cli._parser().parse_args(arguments))
    return {name: value for name, value in found.items() if name not in ("command", "usage")}


def test_a_number_that_may_be_left_out() -> None:
    """`--gateway` takes the port that stands behind it, and never the model."""
    for given, port in ((["--gateway", "m"], 8000), (["m", "--gateway"], 8000), (["--gateway", "9000", "m"], 9000),
                        (["m", "--gateway", "9000"], 9000), (["--gateway=9000", "m"], 9000), (["m"], None),
                        (["m", "--gateway", "--folder", "f"], 8000)):
        found = parsed("up", *given)
        assert (found["model"], found["gateway"]) == ("m", port), given


@pytest.mark.parametrize("command", COMMANDS)
def test_every_order_says_the_same(command: str) -> None:
    """Each option may stand before, between and behind the positionals, which keep their order."""
    before, required = COMMANDS[command]
    positionals = [[each] for each in [*before, "first text", "second"]]
    options = [["--json"], OPTIONS[command], *required]
    wanted = parsed(command, *itertools.chain(*options, *positionals))
    assert wanted["texts"] == ["first text", "second"] and wanted["json"]
    tried = 0
    for order in itertools.permutations([*positionals, *options]):
        if [each for each in order if each in positionals] == positionals:
            assert parsed(command, *itertools.chain(*order)) == wanted, order
            tried += 1
    assert tried >= 12


@pytest.mark.parametrize(("arguments", "texts"), [
    (["--", "-x"], ["-x"]), (["a", "--", "--json", "b"], ["a", "--json", "b"]), (["--json", "--", "--"], ["--"]),
    (["--", "--", "a", "--"], ["--", "a", "--"]), (["a", "--"], ["a"]), (["- a dash, then words"],
                                                                       ["- a dash, then words"]),
    (["-5", "-1.5e3", "-inf"], ["-5", "-1.5e3", "-inf"]), (["-", "--json", "-"], ["-", "-"]),
    (["-40 degrees", "--json", "--no such option"], ["-40 degrees", "--no such option"]), (["", " "], ["", " "]),
    (["--backend=numpy", "a"], ["a"]), (["a", "--back", "numpy", "b"], ["a", "b"]), (["a", "--json"], ["a"]),
    (["--recipe", "-1", "a"], ["a"]),
], ids=str)
def test_what_is_a_text(arguments: list[str], texts: list[str]) -> None:
    assert parsed("demo", *arguments)["texts"] == texts
    assert parsed("infer", "folder", *arguments)["texts"] == texts


def test_dashes_behind_a_model() -> None:
    found = parsed("infer", "--json", "--", "-model", "-text")
    assert (found["model"], found["texts"], found["json"]) == ("-model", ["-text"], True)
    assert parsed("infer", "m", "a", "--profile", "-7", "b") | {"profile": ""} == parsed(
        "infer", "m", "a", "b") | {"profile": ""}


@pytest.mark.parametrize(("arguments", "says"), [
    (["demo", "-weird"], "-weird; write texts that begin with a dash after --"),
    (["demo", "a", "--recpie", "x"], "--recpie"), (["infer", "--json"], "required: MODEL"),
    (["demo", "a", "--backend"], "expected one argument"), (["demo", "--backend", "--json", "a"], "expected one"),
    (["demo", "--backend", "--", "a"], "expected one argument"), (["demo", "--json=yes"], "ignored explicit argument"),
    (["infer", "m", "t", "--pro", "x"], "ambiguous option"), (["papers", "extra"], "unrecognized arguments: extra"),
    (["certify", "certs", "nobody"], "invalid choice: 'nobody'"), (["compare", "m", "--runs", "two"], "'two'"),
])
def test_misuse_is_told_as_it_was_typed(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parsed(*arguments)
    told = capsys.readouterr().err
    assert left.value.code == 2 and says in told and MARK not in told
    assert f"usage: secformer {arguments[0]}" in told


def test_every_option_takes_none_or_one_argument_or_a_number_that_may_be_left_out() -> None:
    """What the parser counts on; a command that needs more must extend it."""
    for parser in secformer.cli._parser()._subparsers._group_actions[0].choices.values():  # type: ignore[union-attr]
        assert isinstance(parser, CommandParser)
        odd = [a.option_strings for a in parser._actions if a.option_strings and a.nargs not in (None, 0)
               and (a.nargs, a.type) != ("?", int)]
        assert not odd
        typed = [a.dest for a in parser._actions if not a.option_strings and a.type is not None]
        assert not typed, "a positional with a type of its own would keep its mark"


def test_as_a_process() -> None:
    from commands_lab import run

    done = run("infer", "nowhere", "--json", "a text")
    assert (done.returncode, done.stdout) == (1, "") and "nowhere is not a folder" in done.stderr


def test_a_parser_alone() -> None:
    parser = CommandParser(prog="x")
    parser.add_argument("first")
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--on", action="store_true")
    assert parser.parse_args(["a", "--on", "b"]) == argparse.Namespace(first="a", rest=["b"], on=True)
    assert parser.parse_args(["a"]).rest == []
