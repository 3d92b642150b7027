"""The command of clients: query."""

from __future__ import annotations

import argparse

from secformer.commands.common import Commands, inputs, show


def query(args: argparse.Namespace) -> None:
    texts = inputs(args)
    from secformer import connect, render

    with connect(args.settings) as model:
        out = model.infer(texts, progress=args.progress)
    show(args, render.infer_json(texts, out), render.infer(texts, out))


_QUERY = """\
Asks two served parties: texts are tokenised and shared here, each party gets one random-looking half, and the answer is
put together here. `secformer init` writes the settings file, `secformer provision` the folder that it names.

examples:
  secformer query --settings client.toml "First text." "Second text."
  secformer query --settings client.toml --pairs questions.tsv --json > answers.json
"""


def add(commands: Commands) -> None:
    """Adds this command to the command line."""
    p = commands.add("query", query, "ask served parties", _QUERY)
    p.add_argument("--settings", required=True, metavar="FILE", help="the client's settings file (TOML)")
    p.add_argument("texts", nargs="*", metavar="TEXT", help="texts; `-` reads lines from standard input")
    p.add_argument("--pairs", metavar="FILE", help="UTF-8 file of text pairs: two texts a line, a tab between them")
    p.add_argument("--progress", action="store_true", help="show progress on stderr")
