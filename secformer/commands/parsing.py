"""Options and positionals in any order: the parser of one command.

argparse fills all positionals at the first run of them, so an option between MODEL and a text would end the texts.
Its own remedy, `parse_intermixed_args`, does not work below subcommands. This parser moves the options before the
positionals and marks the positionals, so that argparse cannot take one of them for an option.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Never

MARK = "\0"  # before every positional; no argument of a process can hold it
ENDS = "--"  # everything behind it is positional
READ = "-"   # the text that stands for standard input


class CommandParser(argparse.ArgumentParser):
    """A parser that takes options and positionals in any order. Behind `--`, everything is a positional.

    An argument that begins with a dash is an option, unless it is `-` alone, a negative number, holds a space, or
    stands behind `--`. Options take no argument, one, or a number that may be left out.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("type", None, _unmarked)  # what argparse applies to an argument that declares no type

    def parse_known_args(  # type: ignore[override]  # argparse has overloads for types of namespaces
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Like argparse's. What is not known is a usage error here, so that the usage shown is the command's own."""
        options, positionals = self._sorted([] if args is None else args)
        behind = [ENDS, *(MARK + each for each in positionals)] if positionals else []
        found, unknown = super().parse_known_args([*options, *behind], namespace)
        if unknown := [each for each in unknown if each != ENDS]:
            told = " ".join(map(_unmarked, unknown))
            dashed = any(each.startswith("-") for each in unknown)
            self.error(f"unrecognized arguments: {told}" + ("; write texts that begin with a dash after --" if dashed
                                                            else ""))
        return found, []

    def error(self, message: str) -> Never:
        super().error(message.replace(MARK, ""))

    def _sorted(self, args: Sequence[str]) -> tuple[list[str], list[str]]:
        """The options, each with its argument, and the positionals; both in the order in which they came."""
        options: list[str] = []
        positionals: list[str] = []
        waiting = list(reversed(args))
        while waiting:
            arg = waiting.pop()
            if arg == ENDS:
                positionals += reversed(waiting)
                break
            if not self._is_option(arg):
                positionals.append(arg)
                continue
            options.append(arg)
            if waiting and waiting[-1] != ENDS and not self._is_option(waiting[-1]) and self._takes(arg, waiting[-1]):
                options.append(waiting.pop())
        return options, positionals

    def _is_option(self, arg: str) -> bool:
        if not arg.startswith("-") or arg == READ:
            return False
        return bool(self._named(arg)) or not (" " in arg or _is_number(arg))

    def _takes(self, arg: str, behind: str) -> bool:
        """Whether the argument behind this option belongs to it. An option that may stand alone takes numbers only."""
        named = self._named(arg)
        return "=" not in arg and len(named) == 1 and named[0].nargs != 0 and (
            named[0].nargs != argparse.OPTIONAL or _is_number(behind))

    def _named(self, arg: str) -> list[argparse.Action]:
        """The options that an argument names: one, by its full name; several, where an abbreviation is ambiguous."""
        name = arg.partition("=")[0]
        table: dict[str, argparse.Action] = {each: a for a in self._actions for each in a.option_strings}
        if name in table:
            return [table[name]]
        if not name.startswith(ENDS):
            return []
        return list({id(a): a for each, a in table.items() if each.startswith(name)}.values())


def _unmarked(text: str) -> str:
    return text.removeprefix(MARK)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
