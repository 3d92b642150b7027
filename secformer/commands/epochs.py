"""The command for the dealer's operator: epoch."""

from __future__ import annotations

import argparse

from secformer.commands import arguments
from secformer.commands.common import Commands, show


def epoch(args: argparse.Namespace) -> None:
    arguments.check_settings(args)
    from secformer.roles.rotation import rotate
    from secformer.roles.settings import load_dealer
    from secformer.views import epochs

    rotated = rotate(load_dealer(args.settings).state)
    show(args, epochs.rotated_json(rotated), epochs.rotated(rotated))


_EPOCH = """\
rotate: run this on the dealer's machine, as the user that runs the dealer. The dealer begins a new epoch for each
model, with new masks, and forgets the old one. Requests that run go on; those that come meanwhile wait until both
parties have opened the weights again. Open sessions of generated texts end, and stored material becomes worthless.

example:
  secformer epoch rotate --settings dealer.toml
"""


def add(commands: Commands) -> None:
    """Adds this command to the command line."""
    p = commands.add("epoch", epoch, "begin new epochs while all roles serve", _EPOCH)
    p.add_argument("what", choices=("rotate",), help="rotate: replace every epoch of this dealer")
    arguments.settings(p, "the dealer's")
