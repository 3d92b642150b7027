"""Commands for certificates: init, certify."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secformer.commands.common import Commands, show

if TYPE_CHECKING:
    from rich.console import RenderableType

    from secformer.roles.certificates import Issued


def init(args: argparse.Namespace) -> None:
    from secformer.roles.certificates import init as make

    hosts = {role: getattr(args, role) for role in ("party0", "party1", "dealer") if getattr(args, role)}
    made = make(Path(args.folder), hosts=hosts, days=args.days)
    show(args, _plain(made), _table(made, f"Each role's folder in {args.folder} goes to its machine; the folder "
                                          f"authority stays with you: whoever has its key can pretend to be any role."))


def certify(args: argparse.Namespace) -> None:
    from secformer.roles.certificates import issue

    made = [issue(Path(args.folder), args.role, name=args.name, days=args.days)]
    show(args, _plain(made), _table(made, "Copy it to its machine and start the role again; the former certificate "
                                          "stays good until it expires."))


def _plain(made: Sequence[Issued]) -> dict[str, Any]:
    return {"certificates": [{"role": m.role, "name": m.name, "certificate": str(m.certificate),
                              "until": m.until.isoformat()} for m in made]}


def _table(made: Sequence[Issued], note: str) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("role", "name", "certificate", "good until")
    for m in made:
        table.add_row(m.role, m.name, str(m.certificate), f"{m.until:%Y-%m-%d}")
    return Group(table, Text(note))


# ---- how they are called ---------------------------------------------------------------------------------------------

_INIT = """\
Makes a private certificate authority, a certificate for party 0, party 1, the dealer and a client, and a commented
settings file for each. As they are, the files work together on one machine.

examples:
  secformer init certs
  secformer init certs --party0 10.0.0.1 --party1 10.0.0.2 --dealer 10.0.0.3
"""
_CERTIFY = """\
Makes a new certificate from the authority of `secformer init`: to renew a role's, or for one more client.

examples:
  secformer certify certs party0
  secformer certify certs client --name alice --days 30
"""


def add(commands: Commands) -> None:
    """Adds these commands to the command line."""
    p = commands.add("init", init, "make certificates and settings files for the served roles", _INIT)
    p.add_argument("folder", metavar="DIR", help="a new folder")
    for role in ("party0", "party1", "dealer"):
        p.add_argument(f"--{role}", metavar="HOST", help=f"address of {role}'s machine (default: this machine)")
    p.add_argument("--days", type=int, default=398, metavar="D", help="days that certificates are good (default 398)")

    p = commands.add("certify", certify, "renew a certificate, or make one for another client", _CERTIFY)
    p.add_argument("folder", metavar="DIR", help="the folder that `secformer init` made")
    p.add_argument("role", choices=("party0", "party1", "dealer", "client"), help="what the certificate is for")
    p.add_argument("--name", metavar="N", help="a client's own name")
    p.add_argument("--days", type=int, default=398, metavar="D", help="days that it is good (default 398)")
