"""The files of a page, by name: what ships with this package, the model's, and which parties it asks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from urllib.parse import urlsplit

from secformer.mpc.errors import InputError, SettingsError

STATIC, MODEL = "static", "model"
INDEX, FACTS, TOKENS = "index.html", "page.json", "tokens.json"
NODE = "package.json"  # for tests of the modules in node, not for browsers
POLICY = b"{{policy}}"  # in the index
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=(), clipboard-read=()",
    "Cache-Control": "no-cache",
}


def page_files(model: Mapping[str, bytes], parties: tuple[str, str], tokens: str = TOKENS) -> dict[str, bytes]:
    """All files, by path.

    model    files of the model's folder, as `page_model` makes them
    parties  where browsers reach party 0 and party 1, as https://host:port
    tokens   where the page gets its tokens: a path at its own origin, or a URL

    Raises InputError for parties or tokens that no browser could be allowed to reach.
    """
    found = _files(files("secformer.page") / STATIC)
    origins = [origin(party, f"party {rank}") for rank, party in enumerate(parties)]
    if origins[0] == origins[1]:
        raise InputError(f"both parties are at {origins[0]}; give the address of each, since whoever gets both halves "
                         f"reads the texts")
    found[INDEX] = found[INDEX].replace(POLICY, policy(origins, tokens).encode())
    found[FACTS] = json.dumps({"parties": origins, "tokens": tokens}, indent=1).encode() + b"\n"
    return found | {f"{MODEL}/{name}": content for name, content in model.items()}


def origin(url: str, whose: str = "the page") -> str:
    """An origin with https, as browsers write it. Raises InputError for anything else."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if (not host or parts.scheme != "https" or parts.path not in ("", "/") or parts.query or parts.fragment
            or parts.username is not None or not set(host) <= _HOST):
        raise InputError(f"the address of {whose} for browsers must be https://host or https://host:port, got {url!r}")
    return f"https://{f'[{host}]' if ':' in host else host}" + (f":{port}" if port not in (None, 443) else "")


def policy(parties: list[str], tokens: str = TOKENS) -> str:
    """The content security policy that holds wherever the page is served from. The page runs and shows its own files
    only. It connects to its own origin, the parties, and whoever gives it tokens. Raises InputError for tokens that
    come from a URL without https."""
    reached = ["'self'", *parties]
    if "://" in tokens:
        parts = urlsplit(tokens)
        reached.append(origin(f"{parts.scheme}://{parts.netloc}", "the tokens"))
    return "; ".join(["default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'",
                      f"connect-src {' '.join(reached)}", "base-uri 'none'", "form-action 'none'",
                      "require-trusted-types-for 'script'", "trusted-types 'none'"])


def headers(parties: list[str], tokens: str = TOKENS) -> dict[str, str]:
    """What a server of the page sends with each file. Only headers can forbid other pages to frame it."""
    return HEADERS | {"Content-Security-Policy": f"{policy(parties, tokens)}; frame-ancestors 'none'"}


def write(folder: Path, found: Mapping[str, bytes], *, force: bool = False) -> None:
    """Writes the files. Raises SettingsError for a folder that holds something, unless with `force`."""
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise SettingsError(f"{folder} is not empty; give a new folder, or --force to write the page's files into it")
    for name, content in found.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


_HOST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._:")


def _files(folder: Traversable, above: str = "") -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for each in folder.iterdir():
        name = above + each.name
        if each.is_dir():
            found |= _files(each, f"{name}/")
        elif name != NODE and not name.startswith("."):
            found[name] = each.read_bytes()
    return found
