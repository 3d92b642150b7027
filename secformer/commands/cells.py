"""The command for several cells: cells."""

from __future__ import annotations

import argparse
import sys
import time

from secformer.commands import arguments
from secformer.commands.common import Commands, show
from secformer.mpc.errors import ProtocolError

STATUS, DRAIN, RESUME = "status", "drain", "resume"
SECONDS, MOST_SECONDS = 5.0, 3600.0  # that a cell gets to answer: by default, at most


def cells(args: argparse.Namespace) -> None:
    if (args.name is None) == (args.what != STATUS):
        args.usage(f"{args.what} takes no NAME: it is about all cells" if args.what == STATUS else
                   f"{args.what} takes the NAME of a cell")
    for option, given in (("--seconds", args.seconds), ("--watch", args.watch)):
        if given is not None and not 0 < given <= MOST_SECONDS:
            args.usage(f"{option} takes seconds, more than 0 and at most {MOST_SECONDS:g}; got {given:g}")
        if given is not None and args.what != STATUS:
            args.usage(f"{option} is for {STATUS}")
    arguments.check_cells(args.cells)
    if args.what == STATUS:
        _status(args)
    else:
        _change(args)


def _status(args: argparse.Namespace) -> None:
    from secformer.cells.listing import load_cells
    from secformer.cells.survey import Survey
    from secformer.views import cells as view

    survey = Survey(load_cells(args.cells), args.seconds or SECONDS)
    while True:
        found = survey.look()
        if args.watch is not None and not args.json:
            _new_page()
        show(args, view.status_json(found), view.status(found))
        if args.watch is None:
            break
        sys.stdout.flush()
        time.sleep(args.watch)
    if found.missing:
        raise ProtocolError(f"{len(found.missing)} of {len(found.cells)} cells are not known to be ready: "
                            f"{', '.join(found.missing)}")


def _new_page() -> None:
    """Before the next table: an empty screen, or the time where the output is no terminal."""
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        console.clear()
    console.print(time.strftime("%Y-%m-%d %H:%M:%S"), highlight=False)


def _change(args: argparse.Namespace) -> None:
    from secformer.cells.drained import drain, resume
    from secformer.cells.listing import load_cells
    from secformer.views import cells as view

    listed = load_cells(args.cells)
    gone = (drain if args.what == DRAIN else resume)(args.cells, args.name)
    show(args, view.drained_json(listed, gone), view.drained(listed, gone))


_CELLS = """\
Shows how the cells of a list do, and takes cells out of work. A cell is a pair of parties with its dealer; the list is
a TOML file with a name and a client's settings file for each cell. status asks both parties of every cell at the same
time. A drained cell gets no new work from running gateways and batch jobs that use the same list; resume ends that.
status ends with exit code 1 unless every cell that is not drained says that it is ready.

examples:
  secformer cells status --cells cells.toml
  secformer cells status --cells cells.toml --watch 2
  secformer cells drain berlin --cells cells.toml
  secformer cells resume berlin --cells cells.toml
"""


def add(commands: Commands) -> None:
    """Adds this command to the command line."""
    p = commands.add("cells", cells, "show how several cells do; drain one, resume one", _CELLS)
    p.add_argument("what", choices=(STATUS, DRAIN, RESUME), help="what to do")
    p.add_argument("name", nargs="?", metavar="NAME", help="the cell to drain or resume")
    arguments.cells(p)
    p.add_argument("--seconds", type=float, metavar="S",
                   help=f"status: seconds that a cell gets to answer (default {SECONDS:g})")
    p.add_argument("--watch", type=float, metavar="S", help="status: look again every S seconds, until Ctrl-C")
