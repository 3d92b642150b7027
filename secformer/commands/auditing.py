"""The command for audit logs and receipts: audit."""

from __future__ import annotations

import argparse
from pathlib import Path

from secformer.commands import files
from secformer.commands.common import Commands, show
from secformer.mpc.errors import InputError

AUTHORITY = "`secformer init` writes authority.pem for each role"


def audit(args: argparse.Namespace) -> None:
    files.readable(args.authority, "--authority", AUTHORITY)
    if args.what == "receipt":
        if args.head or args.after:
            args.usage("--head and --after are for logs; give a whole log with --log")
        _receipt(args)
    elif args.log:
        args.usage("--log is for receipts; give the log to be checked as PATH")
    else:
        _verify(args)


def _verify(args: argparse.Namespace) -> None:
    from secformer.roles.chain import Head, verify
    from secformer.roles.signing import Authority
    from secformer.views import audited

    verdict = verify([Path(path) for path in args.paths], after=Head.read(args.after) if args.after else None,
                     heads=[Head.read(head) for head in args.head],
                     authority=Authority(Path(args.authority)) if args.authority else None)
    show(args, audited.verified_json(verdict), audited.verified(verdict))
    if verdict.bad is not None:
        raise InputError(f"the audit log does not hold: {verdict.bad.file}, line {verdict.bad.line}")


def _receipt(args: argparse.Namespace) -> None:
    from secformer.roles.kept_receipts import verify
    from secformer.roles.signing import Authority
    from secformer.views import audited

    verdict = verify([Path(path) for path in args.paths], logs=[[Path(log)] for log in args.log],
                     authority=Authority(Path(args.authority)) if args.authority else None)
    show(args, audited.receipts_json(verdict), audited.receipts(verdict))
    if verdict.bad is not None:
        raise InputError(f"the receipts do not hold: {verdict.bad.file}, line {verdict.bad.line}: "
                         f"{verdict.bad.problem}")


_AUDIT = """\
verify: checks a role's audit log: that no line was changed, removed, inserted or moved, and that the signatures in it
hold. Lines removed at the end are found with --head, a line that was noted elsewhere, such as in the role's ordinary
log.

receipt: checks a client's receipts (`secformer query --receipt FILE`): that both parties signed them, and that they are
of the same run. With --log, that the party's audit log has the line that each receipt names. Certificates must have
been valid when a receipt was made. Whether one was revoked is not checked: clients check it when they get a receipt.

examples:
  secformer audit verify audit --authority authority.pem
  secformer audit verify audit/audit-000000004711.jsonl --after 4710:HASH --json
  secformer audit receipt receipts.jsonl --authority authority.pem --log audit
"""


def add(commands: Commands) -> None:
    """Adds this command to the command line."""
    p = commands.add("audit", audit, "check an audit log, or receipts", _AUDIT)
    p.add_argument("what", choices=("verify", "receipt"), help="verify: check a log; receipt: check receipts")
    p.add_argument("paths", nargs="+", metavar="PATH", help="the log's folder, or its files; or files of receipts")
    p.add_argument("--authority", metavar="FILE", help="authority.pem, whose certificates the signatures must have")
    p.add_argument("--head", action="append", default=[], metavar="N:HASH",
                   help="a line that the log must have; may be given several times")
    p.add_argument("--after", metavar="N:HASH", help="the last line of earlier files, which are kept elsewhere")
    p.add_argument("--log", action="append", default=[], metavar="PATH",
                   help="a party's audit log, whole, which must have the receipts' lines; may be given once for each "
                        "party")
