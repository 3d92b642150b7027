"""What the commands share: how they are declared, where their texts come from, how they show what they found."""

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


class Commands:
    """The command line's table of commands; every module of this package adds its own."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._table = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
        self._common = argparse.ArgumentParser(add_help=False)
        self._common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")

    def add(self, name: str, run: Run, summary: str, text: str, *, json: bool = True) -> argparse.ArgumentParser:
        """Declares a command: `summary` for the list, `text` for its page (what it does, a blank line, examples)."""
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
    """The texts of the command line; `-` stands for the lines of standard input."""
    texts: list[str] = []
    for text in given:
        if text == "-":
            texts += [line for line in sys.stdin.read().splitlines() if line.strip()]
        else:
            texts.append(text)
    if given and not texts:
        raise InputError("standard input holds no text; give one text a line")
    return texts


def inputs(args: argparse.Namespace) -> list[str] | list[tuple[str, str]]:
    """Texts or, with --pairs, pairs. Neither or both is a usage error."""
    if bool(args.texts) == bool(args.pairs):
        args.usage("give either texts (`-` reads them from standard input) or --pairs FILE")
    return _pairs(Path(args.pairs)) if args.pairs else texts_of(args.texts)


def _pairs(path: Path) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(lines(path), start=1):
        columns = line.split("\t")
        if len(columns) != 2:
            raise InputError(f"{path}: every line holds two texts with one tab between them; text line {number} has "
                             f"{len(columns)} column(s)")
        pairs.append((columns[0], columns[1]))
    return pairs


def lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file that hold text."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): convert it") from error
    if not lines:
        raise InputError(f"{path} holds no text; put one text on a line")
    return [line.rstrip("\r") for line in lines]


def show(args: argparse.Namespace, data: dict[str, Any], view: RenderableType) -> None:
    if args.json:
        print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        from rich.console import Console

        wide = None if sys.stdout.isatty() else 100
        Console(width=wide).print(view)


# ---- options that several commands take ----------------------------------------------------------------------------


def model_and_texts(p: argparse.ArgumentParser, *, profile: bool = True) -> None:
    p.add_argument("model", metavar="MODEL", help="local Hugging Face folder")
    p.add_argument("texts", nargs="*", metavar="TEXT", help="texts; `-` reads lines from standard input")
    p.add_argument("--pairs", metavar="FILE", help="UTF-8 file of text pairs: two texts a line, a tab between them")
    if profile:
        p.add_argument("--profile", metavar="FILE",
                       help="range profile to use instead of the one beside the checkpoint")
    p.add_argument("--truncation", action="store_true", help="cut texts that are too long for the model")


def running(p: argparse.ArgumentParser) -> None:
    p.add_argument("--recipe", default="auto", metavar="R",
                   help="auto: what the checkpoint was trained for (default); faithful: plaintext accuracy on any "
                        "checkpoint; secformer: the paper's protocols; puma, crypten, mpcformer, mpcformer_2relu: the "
                        "systems that it compares with")
    untrained(p)
    placed(p)


def untrained(p: argparse.ArgumentParser) -> None:
    p.add_argument("--untrained-recipe", action="store_true",
                   help="run a recipe whose functions the checkpoint was not trained for, to see what it costs")


def placed(p: argparse.ArgumentParser) -> None:
    p.add_argument("--backend", default="auto", metavar="B", help="auto (default), numpy or cupy")
    p.add_argument("--progress", action="store_true", help="show progress on stderr")


def embedded(p: argparse.ArgumentParser) -> None:
    p.add_argument("--embedding", choices=("private", "client"), default="private",
                   help="private: token ids are secret and looked up securely (default); client: the client holds the "
                        "embedding tables")
