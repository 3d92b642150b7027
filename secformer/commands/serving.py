"""Commands for operators: provision, dealer, party, deal, up."""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from secformer.commands import arguments
from secformer.commands.common import Commands, show
from secformer.commands.files import new_folder
from secformer.mpc.errors import InputError, SettingsError

if TYPE_CHECKING:
    from secformer.gateway.server import GatewayServer
    from secformer.roles.trial import LocalRoles

GATEWAY_PORT, PAGE_PORT, LAST_PORT = 8000, 8450, 65535
NEEDED = ("starlette", "uvicorn", "h11", "prometheus_client")


def need_servers(what: str = "serving", instead: str = "") -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(f"{what} needs the extra `serve`; not installed: {', '.join(missing)}. Install it: "
                            f'pip install "secformer[serve]"{instead}')


def provision(args: argparse.Namespace) -> None:
    arguments.check_profile(args)
    prefix = arguments.public_prefix(args)
    if args.system is not None and args.public_prefix != "system":
        args.usage("--system is the public prefix's, with --public-prefix system; secret prompts are the clients' own")
    new_folder(args.out, "--out")
    from secformer.models.run.progress import shown
    from secformer.models.run.provisioning import write_shares
    from secformer.views import serving

    with shown(args.progress) as tell:
        public = write_shares(args.model, args.out, recipe=args.recipe, profile=args.profile, seed_rank=args.seed_rank,
                              output=args.output, untrained_recipe=args.untrained_recipe, guard=not args.no_guard,
                              embedding=args.embedding, frac=args.frac, public_prefix=prefix, tell=tell)
    show(args, serving.provision_json(public, Path(args.out)), serving.provision(public, Path(args.out)))


def dealer(args: argparse.Namespace) -> None:
    arguments.check_settings(args)
    from secformer.roles.dealer_server import run_dealer
    from secformer.roles.logs import log_to_stderr
    from secformer.roles.settings import load_dealer

    settings = load_dealer(args.settings)
    if settings.metrics is not None:
        need_servers("the dealer's metrics port", "; or turn the port off: metrics = \"\"")
    log_to_stderr("dealer", settings.log_level)
    _supervised(args)
    run_dealer(settings)


def party(args: argparse.Namespace) -> None:
    need_servers()
    arguments.check_settings(args)
    from secformer.roles.logs import log_to_stderr
    from secformer.roles.party_server import run_party
    from secformer.roles.settings import load_party

    settings = load_party(args.settings)
    if args.rank is not None and args.rank != settings.rank:
        raise SettingsError(f"{args.settings} is for party {settings.rank}, but --rank is {args.rank}; give the other "
                            f"file or leave --rank out")
    log_to_stderr(f"party{settings.rank}", settings.log_level)
    _supervised(args)
    run_party(settings)


def _supervised(args: argparse.Namespace) -> None:
    if args.supervised:
        from secformer.roles.signals import end_with_input

        end_with_input()


def deal(args: argparse.Namespace) -> None:
    try:
        lengths = [int(n) for n in args.lengths.split(",")]
    except ValueError:
        raise InputError(f"--lengths must be token counts separated by commas, got {args.lengths!r}") from None
    arguments.check_settings(args)
    from secformer.models.run.progress import shown
    from secformer.roles.settings import load_party
    from secformer.roles.stocking import stock
    from secformer.views import serving

    with shown(args.progress) as tell:
        stocked = stock(load_party(args.settings), lengths, args.count, tell)
    show(args, serving.deal_json(stocked), serving.deal(stocked))
    if stocked.added < args.count:
        raise InputError(f"only {stocked.added} of {args.count} runs could be stored: {stocked.problem}")


def up(args: argparse.Namespace) -> None:
    if args.page is not None and not 1 <= args.page <= LAST_PORT:
        args.usage(f"--page takes a port from 1 to {LAST_PORT}, got {args.page}")
    need_servers()
    new_folder(args.folder, "--folder")
    from rich.console import Console

    from secformer.mpc.net.tcp import listening, split_address
    from secformer.page.serving import origins
    from secformer.roles.signals import term_is_interrupt
    from secformer.roles.trial import LocalRoles

    for port in (args.gateway, args.page):  # one that cannot be used is told before the model is provisioned
        if port is not None:
            listening(split_address(f"127.0.0.1:{port}")).close()
    console, allowed = Console(stderr=True), [] if args.page is None else origins(args.page)
    term_is_interrupt()
    with ExitStack() as stack:
        folder = Path(args.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="secformer-")))
        console.print("provisioning ...")
        try:
            roles = stack.enter_context(LocalRoles(folder, args.model, recipe=args.recipe, origins=allowed,
                                                   untrained_recipe=args.untrained_recipe))
            roles.wait_ready(told=lambda reason: console.print(f"  {reason}", soft_wrap=True, highlight=False))
            told = ["All roles are up. In another terminal:",
                    f'  secformer query --settings {roles.settings("client")} "A sentence."']
            if args.gateway is not None:
                told.append(stack.enter_context(_gateway(args, roles.settings("client"))).about)
            if args.page is not None:
                told += _page(stack, roles, args.page)
            for line in (*told, f"Logs are in {folder}. Ctrl-C stops all roles."):
                console.print(line, soft_wrap=True, highlight=False)
            roles.watch(threading.Event())
        except KeyboardInterrupt:
            stack.close()
            console.print("all roles have ended")


def _gateway(args: argparse.Namespace, settings: Path) -> GatewayServer:
    """The gateway of `up`: it calls the model as its folder is called."""
    from secformer.gateway.desk import desks_of
    from secformer.gateway.server import GatewayServer, Port
    from secformer.roles.logs import log_to_stderr

    port = Port(("127.0.0.1", args.gateway), api_key=arguments.api_key_of(None))
    log_to_stderr("gateway", "warning")
    return GatewayServer(port, desks_of([(Path(args.model).resolve().name, settings)]))


def _page(stack: ExitStack, roles: LocalRoles, port: int) -> list[str]:
    """Serves the page until `stack` is closed. What to do with it, in lines."""
    from secformer.page.trial import browser_options, trial_page

    url = stack.enter_context(trial_page(roles, port)).url
    return [f"The page is at {url} . Its browser must accept the parties' temporary certificates, for example:",
            f"  chromium --user-data-dir=$(mktemp -d) {' '.join(browser_options(roles))} {url}",
            f"Or open {roles.url(0)} and {roles.url(1)} in your browser once, and accept each certificate."]


# ---- how they are called ---------------------------------------------------------------------------------------------

_PROVISION = """\
The model owner's step. Checks a local Hugging Face folder and splits its weights into two share files, one for each
party. Writes a folder for clients with the public description and the tokenizer. Neither share file alone reveals
anything about the weights; send each to its own machine. One of the files holds only a seed of 32 bytes.

examples:
  secformer provision ./my-bert --out shares
  secformer provision ./my-bert --out shares --recipe secformer --seed-rank 0
  secformer provision ./my-chat-model --out shares --public-prefix system --system "You answer briefly."
  secformer provision ./my-bert --out shares --embedding client      every client gets the embedding tables
"""
_DEALER = """\
Runs the dealer until Ctrl-C or SIGTERM. The dealer hands out correlated randomness and sees no data. `secformer init`
writes the settings file.

example:
  secformer dealer --settings dealer.toml
"""
_PARTY = """\
Runs party 0 or party 1 until Ctrl-C or SIGTERM. The party opens the masked weights once, then answers clients.
`secformer init` writes the settings file; `secformer provision` writes the share file.

examples:
  secformer party --rank 0 --settings party0.toml
  secformer party --rank 1 --settings party1.toml
"""
_DEAL = """\
Run this on party 1's machine. It asks the dealer for the corrections of future requests and stores them on disk. The
parties can then answer such requests while the dealer is unreachable. The stored material fits only requests whose
texts have exactly these lengths, in tokens.

examples:
  secformer deal --settings party1.toml --count 100 --lengths 128
  secformer deal --settings party1.toml --count 20 --lengths 16,16,32 --progress
"""
_UP = """\
Tries out the served roles with one command. Provisions a model and runs the dealer and both parties as processes on
this machine, with temporary certificates, until Ctrl-C. On one machine the roles are not protected from each other, so
use this for trials only.

examples:
  secformer up ./my-bert
  secformer up ./my-bert --folder ./kept          keep certificates, share files and logs in ./kept
  secformer up ./my-bert --gateway                and serve the API that applications already use, at port 8000
  secformer up ./my-bert --page                   and serve the page for browsers, at port 8450
"""


def add(commands: Commands) -> None:
    """Adds these commands to the command line."""
    p = commands.add("provision", provision, "split a model into two share files", _PROVISION)
    arguments.model(p)
    p.add_argument("--out", required=True, metavar="DIR", help="new folder for the share files and the clients' folder")
    arguments.recipe(p, purpose="recipe that the parties run. ")
    arguments.profile(p)
    p.add_argument("--seed-rank", type=int, choices=(0, 1), default=1, help="party whose file is a seed (default 1)")
    p.add_argument("--output", choices=("auto", "head"), default="auto",
                   help="results that clients receive. auto: all that the architecture has (default); head: only the "
                        "head's answer")
    p.add_argument("--embedding", choices=("private", "client"), default="private",
                   help="who holds the embedding tables. private: the parties, as shares (default); client: every "
                        "client, which then sends less and learns these weights")
    p.add_argument("--no-guard", action="store_true",
                   help="check nothing: clients will not learn that values left the ranges that the computation is "
                        "right in")
    arguments.prefix(p)
    arguments.frac(p)
    arguments.progress(p)

    p = commands.add("dealer", dealer, "run the dealer", _DEALER, json=False)
    arguments.settings(p, "the dealer's")
    arguments.supervised(p)

    p = commands.add("party", party, "run party 0 or party 1", _PARTY, json=False)
    arguments.settings(p, "the party's")
    p.add_argument("--rank", type=int, choices=(0, 1), help="the party's rank; it must be the one in the settings file")
    arguments.supervised(p)

    p = commands.add("deal", deal, "store material for future requests", _DEAL)
    arguments.settings(p, "party 1's")
    p.add_argument("--count", type=int, required=True, metavar="N", help="number of requests to store material for")
    p.add_argument("--lengths", required=True, metavar="L[,L]", help="number of tokens of each text in such a request")
    arguments.progress(p)

    p = commands.add("up", up, "try out all three roles on this machine", _UP, json=False)
    arguments.model(p)
    arguments.recipe(p, purpose="recipe that the parties run. ")
    p.add_argument("--folder", metavar="DIR", help="keep all files in this folder (default: a temporary folder)")
    p.add_argument("--gateway", nargs="?", type=int, const=GATEWAY_PORT, metavar="PORT",
                   help=f"also run the gateway, on this port of the loopback address (default {GATEWAY_PORT})")
    p.add_argument("--page", nargs="?", type=int, const=PAGE_PORT, metavar="PORT",
                   help=f"also serve the page for browsers, at this port of the loopback address (default {PAGE_PORT})")
