"""The command of clients: query."""

from __future__ import annotations

import argparse

from secformer.commands import arguments
from secformer.commands.common import Commands, inputs, show


def query(args: argparse.Namespace) -> None:
    texts = inputs(args)
    arguments.check_settings(args)
    from secformer import connect
    from secformer.views import answers

    with connect(args.settings, guard=args.guard, receipts=args.receipt) as model:
        out = model.infer(texts, progress=args.progress)
    show(args, answers.infer_json(texts, out), answers.infer(texts, out))


_QUERY = """\
Sends texts to two served parties and prints the answers. This command tokenises the texts, sends each party one
random-looking half, and adds the two halves of the answer. `secformer init` writes the settings file; `secformer
provision` writes the model folder that the settings file names.

examples:
  secformer query --settings client.toml "First text." "Second text."
  secformer query --settings client.toml --pairs questions.tsv --json > answers.json
"""


def add(commands: Commands) -> None:
    """Adds this command to the command line."""
    p = commands.add("query", query, "send texts to two served parties", _QUERY)
    arguments.settings(p, "the client's")
    arguments.texts(p)
    arguments.guard(p, off=False)
    p.add_argument("--receipt", metavar="FILE", help="add both parties' signed receipts of each request to this file; "
                                                     "`secformer audit receipt` checks them")
    arguments.progress(p)
