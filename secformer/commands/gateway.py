"""The command that runs the gateway: gateway."""

from __future__ import annotations

import argparse
from pathlib import Path

from secformer.commands import arguments, files
from secformer.commands.common import Commands
from secformer.commands.serving import need_servers

LISTEN = "127.0.0.1:8000"
PEM = "give a PEM file"


def gateway(args: argparse.Namespace) -> None:
    need_servers("the gateway")
    if not args.settings and not args.cells:
        args.usage("give --settings FILE or --cells FILE")
    named, lists = ([_named(given) for given in each] for each in (args.settings, args.cells))
    for _, file in named:
        files.readable(file, "--settings", "`secformer init` writes one for each role")
    for _, file in lists:
        arguments.check_cells(file)
    for option, file in (("--certificate", args.certificate), ("--key", args.key)):
        files.readable(file, option, PEM)
    api_key = arguments.api_key_of(args.api_key_file)
    from rich.console import Console

    from secformer.cells.listing import load_cells
    from secformer.gateway.desk import desks_of
    from secformer.gateway.server import GatewayServer, Port
    from secformer.mpc.net.tcp import split_address
    from secformer.roles.descriptors import raise_limit
    from secformer.roles.logs import log_to_stderr
    from secformer.roles.signals import wait_for_signal

    port = Port(split_address(args.listen), certificate=args.certificate, key=args.key, api_key=api_key)
    log_to_stderr("gateway", args.log_level)
    raise_limit()
    with GatewayServer(port, desks_of(named, [(name, load_cells(file)) for name, file in lists])) as server:
        Console(stderr=True).print(f"{server.about} Ctrl-C ends it.", soft_wrap=True, highlight=False)
        wait_for_signal(server.require_running)


def _named(given: str) -> tuple[str, str]:
    """The name and the file of NAME=FILE. A file's own name may have the sign, too."""
    name, sign, file = given.partition("=")
    return ("", given) if not sign or Path(given).exists() else (name, file)


_GATEWAY = """\
Runs an HTTP server on this machine with the API that applications already use: OpenAI's for embeddings, completions and
chat, Cohere's and Jina's for reranking, Jina's for classification. It asks served parties as `query` does: it tokenises
and shares the texts here, so no text leaves this machine but to the caller. It needs the extra `serve`.

examples:
  secformer gateway --settings client.toml
  secformer gateway --settings embedder=a/client.toml --settings embedder=b/client.toml --settings chat=c/client.toml
  secformer gateway --cells cells.toml                      several cells of one model; see `secformer cells`
  secformer gateway --settings client.toml --api-key-file key.txt
  secformer gateway --settings client.toml --listen 10.0.0.9:443 --certificate cert.pem --key key.pem \\
                    --api-key-file key.txt
"""


def add(commands: Commands) -> None:
    """Adds this command to the command line."""
    p = commands.add("gateway", gateway, "serve the API that applications already use", _GATEWAY, json=False)
    p.add_argument("--settings", action="append", default=[], metavar="[NAME=]FILE",
                   help="a client's settings file, and what callers name its model (default: its class); give this "
                        "option again for other models, and for other parties that serve the same one, under one name")
    p.add_argument("--cells", action="append", default=[], metavar="[NAME=]FILE",
                   help="a list of cells that serve one model, and what callers name it; `secformer cells` drains them")
    p.add_argument("--listen", default=LISTEN, metavar="HOST:PORT",
                   help=f"address to listen on (default {LISTEN}). Beyond this machine, a certificate, its key and an "
                        f"API key are needed")
    p.add_argument("--certificate", metavar="FILE", help="PEM file of the gateway's certificate: speak HTTPS")
    p.add_argument("--key", metavar="FILE", help="PEM file of the certificate's key")
    p.add_argument("--api-key-file", metavar="FILE",
                   help=f"file with the key that callers must show (default: the variable "
                        f"{arguments.API_KEY}, if it is set)")
    p.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info",
                   help="lowest severity that is logged (default info)")
