"""What all commands need: how a command is declared, how it reads texts, how it shows a result."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from secformer.commands.files import lines
from secformer.commands.parsing import READ, CommandParser
from secformer.models.data.unicode import require_unicode, undecodable
from secformer.mpc.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

Run = Callable[[argparse.Namespace], None]

PAIRS = "give a UTF-8 file with two texts per line, separated by a tab"
WIDTH = 100  # characters per line of tables that go to a file or a pipe


class Commands:
    """The table of commands. Each module of this package adds its own commands to it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._table = parser.add_subparsers(title="commands", metavar="COMMAND", required=True,
                                            parser_class=CommandParser)
        self._common = CommandParser(add_help=False)
        self._common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")

    def add(self, name: str, run: Run, summary: str, text: str, *, json: bool = True) -> CommandParser:
        """Declares a command. `summary` is its line in the list; `text` is its help page: what it does, a blank line,
        examples."""
        about, _, examples = text.partition("\n\n")
        parser: CommandParser = self._table.add_parser(
            name, parents=[self._common], help=summary, description=about, epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(command=run, usage=parser.error)
        if json:
            parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
        return parser


# ---- texts in, tables out --------------------------------------------------------------------------------------------


def texts_of(given: Sequence[str]) -> list[str]:
    """The texts given on the command line. `-` is replaced by the lines of standard input that are not empty.

    Raises InputError for a text that is not valid Unicode, with its number and place, and for an empty input.
    """
    texts: list[str] = []
    for text in given:
        if text == READ:
            texts += _standard_input()
        else:
            require_unicode(text, f"text {len(texts)}")
            texts.append(text)
    if given and not texts:
        raise InputError("standard input holds no text; give one text per line")
    return texts


def _standard_input() -> list[str]:
    try:
        found = sys.stdin.read().split("\n")
    except UnicodeDecodeError as error:
        raise undecodable(error, "standard input") from error
    for number, line in enumerate(found, start=1):  # in some locales, Python keeps bytes that it cannot decode
        require_unicode(line, f"line {number} of standard input")
    return [line.rstrip("\r") for line in found if line.strip()]


def inputs(args: argparse.Namespace) -> list[str] | list[tuple[str, str]]:
    """The texts, or the pairs of --pairs. It is a usage error to give neither or both."""
    if bool(args.texts) == (args.pairs is not None):
        args.usage("give either texts (`-` reads standard input) or --pairs FILE")
    return _pairs(args.pairs) if args.pairs is not None else texts_of(args.texts)


def _pairs(path: str) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(lines(path, "--pairs", PAIRS), start=1):
        columns = line.split("\t")
        if len(columns) != 2:
            raise InputError(f"--pairs {path}: every line must hold two texts, separated by one tab; text line "
                             f"{number} has {len(columns)} column(s)")
        pairs.append((columns[0], columns[1]))
    return pairs


def show_json(data: dict[str, Any]) -> None:
    """Prints a result as JSON."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # paths may hold what the output cannot
        text = json.dumps(data, indent=2, allow_nan=False)
    print(text)


def show(args: argparse.Namespace, data: dict[str, Any], view: RenderableType) -> None:
    """Prints a result: `data` as JSON with --json, else `view` as tables."""
    if args.json:
        show_json(data)
    else:
        from rich.console import Console

        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        Console(width=None if sys.stdout.isatty() else WIDTH).print(view)
