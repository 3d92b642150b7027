"""The command that makes a page for browsers: page."""

from __future__ import annotations

import argparse
from pathlib import Path

from secformer.commands import arguments
from secformer.commands.common import Commands, show
from secformer.commands.files import new_folder


def page(args: argparse.Namespace) -> None:
    arguments.check_settings(args)
    new_folder(args.out, "DIR")
    from secformer.page.files import Page, write
    from secformer.page.model import page_model
    from secformer.roles.certificates import PORTS
    from secformer.roles.settings import load_client
    from secformer.views import published

    settings = load_client(args.settings)
    known = [f"https://{f'[{host}]' if ':' in host else host}:{PORTS[f'browsers{rank}']}"
             for rank, (host, _) in enumerate((settings.party0, settings.party1))]
    made = Page((args.party0 or known[0], args.party1 or known[1]), args.tokens)
    files = made.files(page_model(settings.model))
    write(Path(args.out), files, force=args.force)
    show(args, published.page_json(made, Path(args.out), files), published.page(made, Path(args.out), files))


_PAGE = """\
Writes a page for browsers into DIR: static files, to be served from your own origin. Whoever opens the page types a
text; the page tokenises and splits it in the browser, sends one half to each party, and puts the answer together.
Serve it yourself, over HTTPS: never let a party serve it, since whoever serves it could serve another page.

examples:
  secformer page site --settings client.toml
  secformer page site --settings client.toml --party0 https://party0.example --party1 https://party1.example:8445
  secformer page site --settings client.toml --force        write over an older page
  secformer up ./my-bert --page                             serve a page and all roles on this machine, for a trial
"""


def add(commands: Commands) -> None:
    """Adds this command to the command line."""
    p = commands.add("page", page, "write a page that asks the parties from a browser", _PAGE)
    p.add_argument("out", metavar="DIR", help="new folder for the page's files")
    arguments.settings(p, "the client's")
    for rank in (0, 1):
        p.add_argument(f"--party{rank}", metavar="URL",
                       help=f"where browsers reach party {rank} (default: its machine in the settings, and the usual "
                            f"port for browsers)")
    p.add_argument("--tokens", metavar="URL", default="tokens.json",
                   help="where the page gets its tokens (default: tokens.json beside it)")
    p.add_argument("--force", action="store_true", help="write into a folder that is not empty")
