"""Commands for operators: provision, dealer, party, deal, up."""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import threading
from pathlib import Path

from secformer.commands.common import Commands, show, untrained
from secformer.mpc.errors import InputError, SettingsError

NEEDED = ("starlette", "uvicorn", "h11", "prometheus_client")


def _need_servers() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(f"serving needs the extra `serve` ({', '.join(missing)} missing here): "
                            f'pip install "secformer[serve]"')


def provision(args: argparse.Namespace) -> None:
    from secformer.models.run.progress import shown
    from secformer.models.run.provisioning import write_shares
    from secformer.roles import render

    with shown(args.progress) as tell:
        public = write_shares(args.model, args.out, recipe=args.recipe, profile=args.profile, seed_rank=args.seed_rank,
                       output=args.output, untrained_recipe=args.untrained_recipe, tell=tell)
    show(args, render.provision_json(public, Path(args.out)), render.provision(public, Path(args.out)))


def dealer(args: argparse.Namespace) -> None:
    from secformer.roles.dealer import run_dealer
    from secformer.roles.logs import log_to_stderr
    from secformer.roles.settings import load_dealer

    settings = load_dealer(args.settings)
    log_to_stderr("dealer", settings.log_level)
    run_dealer(settings)


def party(args: argparse.Namespace) -> None:
    _need_servers()
    from secformer.roles.logs import log_to_stderr
    from secformer.roles.party import run_party
    from secformer.roles.settings import load_party

    settings = load_party(args.settings)
    if args.rank is not None and args.rank != settings.rank:
        raise SettingsError(f"{args.settings} is for party {settings.rank}, the command line says --rank {args.rank}")
    log_to_stderr(f"party{settings.rank}", settings.log_level)
    run_party(settings)


def deal(args: argparse.Namespace) -> None:
    try:
        lengths = [int(n) for n in args.lengths.split(",")]
    except ValueError:
        raise InputError(f"--lengths takes token counts with commas between them, got {args.lengths!r}") from None
    from secformer.models.run.progress import shown
    from secformer.roles import render
    from secformer.roles.settings import load_party
    from secformer.roles.stocking import stock

    with shown(args.progress) as tell:
        stocked = stock(load_party(args.settings), lengths, args.count, tell)
    show(args, render.deal_json(stocked), render.deal(stocked))
    if stocked.added < args.count:
        raise InputError(f"only {stocked.added} of {args.count} runs could be stored: {stocked.problem}")


def up(args: argparse.Namespace) -> None:
    _need_servers()
    from rich.console import Console

    from secformer.roles.local import LocalRoles
    from secformer.roles.signals import term_is_interrupt

    console = Console(stderr=True)
    term_is_interrupt()
    with tempfile.TemporaryDirectory(prefix="secformer-") as temporary:
        folder = Path(args.folder) if args.folder else Path(temporary)
        console.print("provisioning ...")
        try:
            with LocalRoles(folder, args.model, recipe=args.recipe, untrained_recipe=args.untrained_recipe) as roles:
                roles.wait_ready(told=lambda reason: console.print(f"  {reason}", soft_wrap=True, highlight=False))
                console.print("All roles are up. In another terminal:")
                command = f'secformer query --settings {roles.settings("client")} "A sentence."'
                console.print(f"  {command}", soft_wrap=True, highlight=False)
                console.print(f"Logs are in {folder}. Ctrl-C ends all.", soft_wrap=True, highlight=False)
                roles.watch(threading.Event())
        except KeyboardInterrupt:
            console.print("all roles have ended")


# ---- how they are called ---------------------------------------------------------------------------------------------

_PROVISION = """\
The model owner's step: checks a local Hugging Face folder, splits its weights into two share files, one for each party,
and writes a folder for clients (public description, tokenizer). Neither share file alone says anything about the
weights; send each to its own machine. One of them is a seed of 32 bytes.

examples:
  secformer provision ./my-bert --out shares
  secformer provision ./my-bert --out shares --recipe secformer --seed-rank 0
"""
_DEALER = """\
Runs the dealer, which hands out correlated randomness and sees no data, until Ctrl-C or SIGTERM. `secformer init`
writes its settings file.

example:
  secformer dealer --settings dealer.toml
"""
_PARTY = """\
Runs party 0 or party 1 until Ctrl-C or SIGTERM: opens the weights' masks once, then answers clients. `secformer init`
writes the settings files, `secformer provision` the share file.

examples:
  secformer party --rank 0 --settings party0.toml
  secformer party --rank 1 --settings party1.toml
"""
_DEAL = """\
Run on party 1's machine: asks the dealer for the corrections of requests to come and stores them on disk, so that such
requests are answered while the dealer is away. Material fits requests of exactly these text lengths, in tokens.

examples:
  secformer deal --settings party1.toml --count 100 --lengths 128
  secformer deal --settings party1.toml --count 20 --lengths 16,16,32 --progress
"""
_UP = """\
Tries the served roles in one command: provisions a model and runs the dealer and both parties as processes of this
machine, with temporary certificates, until Ctrl-C. They are then not separate from each other: this is for trying.

examples:
  secformer up ./my-bert
  secformer up ./my-bert --folder ./kept          keep certificates, share files and logs there
"""


def add(commands: Commands) -> None:
    """Adds these commands to the command line."""
    p = commands.add("provision", provision, "split a model into two share files", _PROVISION)
    p.add_argument("model", metavar="MODEL", help="local Hugging Face folder")
    p.add_argument("--out", required=True, metavar="DIR", help="new folder for the share files and the clients' folder")
    p.add_argument("--recipe", default="auto", metavar="R", help="recipe that the parties run (default auto)")
    untrained(p)
    p.add_argument("--profile", metavar="FILE", help="range profile to use instead of the one beside the checkpoint")
    p.add_argument("--seed-rank", type=int, choices=(0, 1), default=1, help="whose share file is a seed (default 1)")
    p.add_argument("--output", choices=("auto", "head"), default="auto",
                   help="what clients receive: all that the architecture has (auto), or the head's answer only")
    p.add_argument("--progress", action="store_true", help="show progress on stderr")

    p = commands.add("dealer", dealer, "run the dealer", _DEALER, json=False)
    p.add_argument("--settings", required=True, metavar="FILE", help="settings file (TOML)")

    p = commands.add("party", party, "run party 0 or party 1", _PARTY, json=False)
    p.add_argument("--settings", required=True, metavar="FILE", help="settings file (TOML)")
    p.add_argument("--rank", type=int, choices=(0, 1), help="must agree with the settings file")

    p = commands.add("deal", deal, "make material ahead of time", _DEAL)
    p.add_argument("--settings", required=True, metavar="FILE", help="party 1's settings file (TOML)")
    p.add_argument("--count", type=int, required=True, metavar="N", help="requests to make material for")
    p.add_argument("--lengths", required=True, metavar="L[,L]", help="tokens of each text of such a request")
    p.add_argument("--progress", action="store_true", help="show progress on stderr")

    p = commands.add("up", up, "run all three roles on this machine, for trying them", _UP, json=False)
    p.add_argument("model", metavar="MODEL", help="local Hugging Face folder")
    p.add_argument("--recipe", default="auto", metavar="R", help="recipe that the parties run (default auto)")
    untrained(p)
    p.add_argument("--folder", metavar="DIR", help="keep everything there (default: a temporary folder)")
