"""What a page consists of: the files that ship with this package, the model's, and whom it may ask."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Page:
    """Whom a page asks, and where it gets its tokens.

    parties  where browsers reach party 0 and party 1, as https://host:port
    tokens   a path at the page's own origin, or a URL

    Raises InputError for parties or tokens that no browser could be allowed to reach.
    """

    parties: tuple[str, str]
    tokens: str = TOKENS

    def __post_init__(self) -> None:
        first, second = (origin(party, f"party {rank}") for rank, party in enumerate(self.parties))
        if first == second:
            raise InputError(f"both parties are at {first}; give the address of each, since whoever gets both halves "
                             f"reads the texts")
        object.__setattr__(self, "parties", (first, second))
        self._reached()

    def files(self, model: Mapping[str, bytes]) -> dict[str, bytes]:
        """All files, by path. `model`: those of the model's folder, as `page_model` makes them."""
        found = _files(files("secformer.page") / STATIC)
        found[INDEX] = found[INDEX].replace(POLICY, self.policy.encode())
        found[FACTS] = json.dumps({"parties": self.parties, "tokens": self.tokens}, indent=1).encode() + b"\n"
        return found | {f"{MODEL}/{name}": content for name, content in model.items()}

    @property
    def policy(self) -> str:
        """The content security policy that holds wherever the page is served from. The page runs and shows its own
        files only. It connects to its own origin, the parties, and whoever gives it tokens."""
        return "; ".join(["default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'",
                          f"connect-src {' '.join(self._reached())}", "base-uri 'none'", "form-action 'none'",
                          "require-trusted-types-for 'script'", "trusted-types 'none'"])

    @property
    def headers(self) -> dict[str, str]:
        """What a server of the page sends with each file. Only headers can forbid other pages to frame it."""
        return HEADERS | {"Content-Security-Policy": f"{self.policy}; frame-ancestors 'none'"}

    def _reached(self) -> list[str]:
        own = ["'self'", *self.parties]
        if "://" not in self.tokens:
            return own
        parts = urlsplit(self.tokens)
        return [*own, origin(f"{parts.scheme}://{parts.netloc}", "the tokens")]


def origin(url: str, whose: str = "the page") -> str:
    """An origin with https, as browsers write it. Raises InputError for anything else."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InputError(_unfit(url, whose)) from None
    if (not host or parts.scheme != "https" or parts.path not in ("", "/") or parts.query or parts.fragment
            or parts.username is not None or not set(host) <= _HOST):
        raise InputError(_unfit(url, whose))
    return f"https://{f'[{host}]' if ':' in host else host}" + (f":{port}" if port not in (None, 443) else "")


def _unfit(url: str, whose: str) -> str:
    return f"the address of {whose} for browsers must be https://host or https://host:port, got {url!r}"


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
