"""The command for pages in browsers: token."""

from __future__ import annotations

import argparse
import sys

from secformer.commands import arguments
from secformer.commands.common import Commands, show_json
from secformer.mpc.errors import InputError

MINUTES, REQUESTS = 10.0, 10_000
WARNING = "tokens are secrets: whoever holds one may ask that party in this client's name until it expires"


def token(args: argparse.Namespace) -> None:
    arguments.check_settings(args)
    from secformer.roles.settings import load_client
    from secformer.roles.tokens import MOST_SECONDS, pair
    from secformer.views import tokens

    if not 1 <= 60 * args.minutes <= MOST_SECONDS:
        raise InputError(f"--minutes must be from 1/60 to {MOST_SECONDS // 60}, got {args.minutes:g}")
    made = pair(load_client(args.settings), int(60 * args.minutes), args.requests)
    print(f"secformer: {WARNING}", file=sys.stderr)
    if args.json:
        show_json(made.as_dict())
    else:
        print(tokens.tokens(made))


_TOKEN = """\
Makes two bearer tokens for a page in a browser, one for each party, and prints them. A browser cannot show the client's
certificate, so the page shows the tokens instead. Tokens are secrets: whoever holds one may ask that party in this
client's name until it expires. Nothing is written to disk.

examples:
  secformer token --settings client.toml
  secformer token --settings client.toml --minutes 5 --requests 200 --json > tokens.json
"""


def add(commands: Commands) -> None:
    """Adds this command to the command line."""
    p = commands.add("token", token, "make tokens for a page in a browser", _TOKEN)
    arguments.settings(p, "the client's")
    p.add_argument("--minutes", type=float, default=MINUTES, metavar="M",
                   help=f"how long the tokens hold (default {MINUTES:g}); a party's token_seconds may allow less")
    p.add_argument("--requests", type=int, default=REQUESTS, metavar="N",
                   help=f"how many requests each token is good for (default {REQUESTS})")
