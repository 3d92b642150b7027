"""The command that runs several workers of one role on one machine: workers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from secformer.commands import files
from secformer.commands.common import Commands
from secformer.commands.serving import need_servers

ENDING = 30.0  # seconds


def workers(args: argparse.Namespace) -> None:
    if args.cores is not None and args.pin is not None:
        args.usage("give --cores or --pin, not both")
    if not args.ending > 0:
        args.usage(f"--ending must be more than 0 seconds, got {args.ending:g}")
    for file in args.settings:
        files.readable(file, "SETTINGS", "`secformer init` writes one for each role")
    from secformer.roles import pinning
    from secformer.roles.logs import log_to_stderr
    from secformer.roles.supervising import Supervisor
    from secformer.roles.worker_files import read_workers

    found = read_workers([Path(file) for file in args.settings])
    if any(worker.role != "dealer" or worker.settings.metrics is not None for worker in found):
        need_servers()
    cores: list[pinning.Cores | None] = [None] * len(found)
    if args.cores is not None:
        cores = [*pinning.shared_out(args.cores, len(found), pinning.usable())]
    elif args.pin is not None:
        cores = [*pinning.pins(args.pin, len(found), pinning.usable())]
    log_to_stderr("workers", "info")
    Supervisor(found, cores, _write, args.ending).run()


def _write(line: str) -> None:
    """Passes a line of a worker's log on. Workers go on where nobody reads it any more."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return


_WORKERS = """\
Runs one role of several cells on this machine: a process for each settings file. All files must be of the same role,
because whoever runs two roles of a cell in one place can read everything. A worker that ends by itself is started
again, after 1 to 60 seconds. SIGTERM and Ctrl-C end all of them in order; SIGHUP makes them read their certificates
again. This is for containers and trials: in production, let systemd or your cluster start each role.

examples:
  secformer workers cell-a/party1.toml cell-b/party1.toml
  secformer workers a.toml b.toml --cores 4             four cores for each
  secformer workers a.toml b.toml --pin 0-3,4-7         these cores for each
"""


def add(commands: Commands) -> None:
    """Adds this command to the command line."""
    p = commands.add("workers", workers, "run one role of several cells", _WORKERS, json=False)
    p.add_argument("settings", nargs="+", metavar="SETTINGS", help="a settings file (TOML) of each worker")
    p.add_argument("--cores", type=int, metavar="N", help="give each worker N cores of its own")
    p.add_argument("--pin", metavar="CORES", help="give each worker these cores: a part for each settings file, "
                   "separated by commas; a part is a core, a range, or several of these joined by +")
    p.add_argument("--ending", type=float, default=ENDING, metavar="S",
                   help=f"seconds in which a worker must end before it is killed (default {ENDING:g})")
