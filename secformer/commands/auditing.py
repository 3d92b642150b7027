"""The command for audit logs: audit."""

from __future__ import annotations

import argparse
from pathlib import Path

from secformer.commands import files
from secformer.commands.common import Commands, show
from secformer.mpc.errors import InputError


def audit(args: argparse.Namespace) -> None:
    files.readable(args.authority, "--authority", "`secformer init` writes authority.pem for each role")
    from secformer.roles.chain import Head, verify
    from secformer.roles.signing import Authority
    from secformer.views import audited

    verdict = verify([Path(path) for path in args.paths], after=Head.read(args.after) if args.after else None,
                     heads=[Head.read(head) for head in args.head],
                     authority=Authority(Path(args.authority)) if args.authority else None)
    show(args, audited.verified_json(verdict), audited.verified(verdict))
    if verdict.bad is not None:
        raise InputError(f"the audit log does not hold: {verdict.bad.file}, line {verdict.bad.line}")


_AUDIT = """\
Checks a role's audit log: that no line was changed, removed, inserted or moved, and that the signatures in it hold.
Lines removed at the end are found with --head, a line that was noted elsewhere, such as in the role's ordinary log.

examples:
  secformer audit verify audit --authority authority.pem
  secformer audit verify audit/audit-000000004711.jsonl --after 4710:HASH --json
"""


def add(commands: Commands) -> None:
    """Adds this command to the command line."""
    p = commands.add("audit", audit, "check an audit log", _AUDIT)
    p.add_argument("what", choices=("verify",), help="verify: check a log")
    p.add_argument("paths", nargs="+", metavar="PATH", help="the log's folder, or its files")
    p.add_argument("--authority", metavar="FILE", help="authority.pem, whose certificates the signatures must have")
    p.add_argument("--head", action="append", default=[], metavar="N:HASH",
                   help="a line that the log must have; may be given several times")
    p.add_argument("--after", metavar="N:HASH", help="the last line of earlier files, which are kept elsewhere")
