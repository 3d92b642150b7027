"""What all commands need: how a command is declared, how it reads texts, how it shows a result."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secformer.mpc.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

Run = Callable[[argparse.Namespace], None]

WIDTH = 100  # characters per line of tables that go to a file or a pipe


class Commands:
    """The table of commands. Each module of this package adds its own commands to it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._table = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
        self._common = argparse.ArgumentParser(add_help=False)
        self._common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")

    def add(self, name: str, run: Run, summary: str, text: str, *, json: bool = True) -> argparse.ArgumentParser:
        """Declares a command. `summary` is its line in the list; `text` is its help page: what it does, a blank line,
        examples."""
        about, _, examples = text.partition("\n\n")
        parser: argparse.ArgumentParser = self._table.add_parser(
            name, parents=[self._common], help=summary, description=about, epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(command=run, usage=parser.error)
        if json:
            parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
        return parser


# ---- texts in, tables out --------------------------------------------------------------------------------------------


def texts_of(given: Sequence[str]) -> list[str]:
    """The texts given on the command line. `-` is replaced by the lines of standard input that are not empty."""
    texts: list[str] = []
    for text in given:
        if text == "-":
            texts += [line for line in sys.stdin.read().splitlines() if line.strip()]
        else:
            texts.append(text)
    if given and not texts:
        raise InputError("standard input holds no text; give one text per line")
    return texts


def inputs(args: argparse.Namespace) -> list[str] | list[tuple[str, str]]:
    """The texts, or the pairs of --pairs. It is a usage error to give neither or both."""
    if bool(args.texts) == bool(args.pairs):
        args.usage("give either texts (`-` reads standard input) or --pairs FILE")
    return _pairs(Path(args.pairs)) if args.pairs else texts_of(args.texts)


def _pairs(path: Path) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(lines(path), start=1):
        columns = line.split("\t")
        if len(columns) != 2:
            raise InputError(f"{path}: every line must hold two texts, separated by one tab; text line {number} has "
                             f"{len(columns)} column(s)")
        pairs.append((columns[0], columns[1]))
    return pairs


def lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, without the empty ones. Raises InputError if there are none."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it") from error
    if not lines:
        raise InputError(f"{path} holds no text; write one text per line")
    return [line.rstrip("\r") for line in lines]


def show(args: argparse.Namespace, data: dict[str, Any], view: RenderableType) -> None:
    """Prints a result: `data` as JSON with --json, else `view` as tables."""
    if args.json:
        print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        from rich.console import Console

        Console(width=None if sys.stdout.isatty() else WIDTH).print(view)
