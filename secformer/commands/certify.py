"""Commands for certificates: init, certify, revoke."""

from __future__ import annotations

import argparse
from pathlib import Path

from secformer.commands.common import Commands, show
from secformer.commands.files import folder, new_folder
from secformer.mpc.errors import InputError


def init(args: argparse.Namespace) -> None:
    new_folder(args.folder, "DIR")
    from secformer.roles.certificates import init as make
    from secformer.views.issued import issued, issued_json

    hosts = {role: getattr(args, role) for role in ("party0", "party1", "dealer") if getattr(args, role)}
    made = make(Path(args.folder), hosts=hosts, days=args.days, origins=args.origin)
    show(args, issued_json(made), issued(made, f"Copy each role's folder in {args.folder} to the machine of that role. "
                                               f"Keep the folder `authority` to yourself: its key can forge "
                                               f"a certificate for any role."))


def certify(args: argparse.Namespace) -> None:
    folder(args.folder, "DIR", "give the folder that `secformer init` made")
    from secformer.roles.certificates import issue
    from secformer.views.issued import issued, issued_json

    made = [issue(Path(args.folder), args.role, name=args.name, days=args.days, hosts=args.host)]
    show(args, issued_json(made), issued(made, "Copy the certificate and its key to the machine of the role. A "
                                               "running role uses them within seconds. The old certificate stays valid "
                                               "until it expires; `secformer revoke --old` ends it."))


def revoke(args: argparse.Namespace) -> None:
    folder(args.folder, "DIR", "give the folder that `secformer init` made")
    try:
        serial = None if args.serial is None else int(args.serial.replace(":", ""), 16)
    except ValueError:
        raise InputError(f"--serial must be a serial number in hexadecimal digits, as `openssl x509 -noout -serial` "
                         f"prints it, got {args.serial!r}") from None
    from secformer.roles.certificates import AUTHORITY, REVOKED
    from secformer.roles.certificates import revoke as make
    from secformer.views.issued import revoked, revoked_json

    made, path = make(Path(args.folder), args.name, serial=serial, old=args.old), Path(args.folder, AUTHORITY, REVOKED)
    show(args, revoked_json(made, path), revoked(made, f"Copy {path} to every role's folder, over the file of the same "
                                                       f"name. Running roles read it within seconds."))


# ---- how they are called ---------------------------------------------------------------------------------------------

_INIT = """\
Creates a private certificate authority. Creates a certificate and a commented settings file for each of party 0,
party 1, the dealer and a client. If no hosts are given, the files are for four roles on this machine.

examples:
  secformer init certs
  secformer init certs --party0 10.0.0.1 --party1 10.0.0.2 --dealer 10.0.0.3
  secformer init certs --origin https://page.example        a page there may ask from browsers
"""
_CERTIFY = """\
Issues a certificate from the authority that `secformer init` made. It renews the certificate of a role or, with
--name, certifies one more client.

examples:
  secformer certify certs party0
  secformer certify certs client --name alice --days 30
"""
_REVOKE = """\
Revokes certificates before they expire. Adds them to the authority's list of revoked certificates, which every role
reads. A role or client whose certificate is on the list is refused, and its open connections end.

examples:
  secformer revoke certs alice                 all certificates of this client
  secformer revoke certs party0 --old          all but the newest, after it was renewed
  secformer revoke certs alice --serial 3F:A2:07
"""


def add(commands: Commands) -> None:
    """Adds these commands to the command line."""
    p = commands.add("init", init, "make certificates and settings files for the served roles", _INIT)
    p.add_argument("folder", metavar="DIR", help="a new folder")
    for role in ("party0", "party1", "dealer"):
        p.add_argument(f"--{role}", metavar="HOST", help=f"host name or IP address of {role} (default: this machine)")
    p.add_argument("--origin", action="append", default=[], metavar="O",
                   help="origin of a page that may ask both parties from browsers; may be given several times "
                        "(default: the parties have no port for browsers)")
    p.add_argument("--days", type=int, default=398, metavar="D", help="days that certificates are valid (default 398)")

    p = commands.add("certify", certify, "renew a certificate, or make one for another client", _CERTIFY)
    p.add_argument("folder", metavar="DIR", help="the folder that `secformer init` made")
    p.add_argument("role", choices=("party0", "party1", "dealer", "client"), help="role that the certificate is for")
    p.add_argument("--name", metavar="N", help="name of an additional client (role `client` only)")
    p.add_argument("--host", action="append", metavar="H",
                   help="host name or IP address by which browsers reach a party; may be given several times (default: "
                        "as in its last certificate)")
    p.add_argument("--days", type=int, default=398, metavar="D", help="days that it is valid (default 398)")

    p = commands.add("revoke", revoke, "revoke certificates of a role or a client", _REVOKE)
    p.add_argument("folder", metavar="DIR", help="the folder that `secformer init` made")
    p.add_argument("name", metavar="NAME", help="role, or name of the client")
    which = p.add_mutually_exclusive_group()
    which.add_argument("--old", action="store_true", help="revoke all but the newest certificate of this name")
    which.add_argument("--serial", metavar="S", help="revoke only the certificate with this serial number, in "
                       "hexadecimal digits")
