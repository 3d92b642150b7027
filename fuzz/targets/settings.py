"""Settings files, and the PEM files that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from fuzz.mutators import lines
from fuzz.target import Read, Target, require
from secformer.mpc.net.tls import Identity, client_context, server_context
from secformer.roles.certificates import AUTHORITY, init, issue
from secformer.roles.settings import (
    TLS,
    ClientSettings,
    DealerSettings,
    PartySettings,
    load_client,
    load_dealer,
    load_party,
    template,
)

KEYS = [f"{f.name} =" for cls in (PartySettings, DealerSettings, ClientSettings) for f in fields(cls)]
WORDS = (*KEYS, "[tls]", "[[tls]]", "{}", "inf", "nan", "0x10", "1_000", "1979-05-27", '"[::1]:1"', '"a:99999"', '"":',
         '"""', "'''", '"\\u0000"', "true", "[" * 500, "a." * 500, "{a=" * 400)


def settings(load: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A reader of one role's file: what it reads, written by the template, it reads again as the same."""
    @contextmanager
    def opened(folder: Path) -> Iterator[Read]:
        file = folder / "role.toml"

        def read(data: bytes) -> None:
            file.write_bytes(data)
            found = load(file)
            values = {f.name: getattr(found, f.name) for f in fields(found) if f.name != TLS}
            tls = {f.name: str(getattr(found.tls, f.name)) for f in fields(Identity)}
            if any(_odd(str(value)) for value in (*values.values(), *tls.values())):
                return
            file.write_text(template(type(found), values, tls), "utf-8")
            require(load(file) == found, "settings have one meaning")

        yield read

    return opened


def _odd(text: str) -> bool:
    """Whether a text has characters that the template, which writes names and paths, does not escape."""
    return not text.isprintable()


def patched(valid: bytes, data: bytes) -> bytes:
    """Valid bytes, changed where the input says: an operation, a place of two bytes, a byte. Keys are made anew each
    time, so that none stands in the corpus."""
    found = bytearray(valid)
    for at in range(0, len(data) - 3, 4):
        operation, place = data[at] % 3, int.from_bytes(data[at + 1 : at + 3], "big") % (len(found) + 1)
        found[place : place + (operation != 0)] = data[at + 3 : at + 4] if operation < 2 else b""
    return bytes(found)


@contextmanager
def identities(folder: Path) -> Iterator[Read]:
    """Certificate, authority and key, in one file that serves as each."""
    init(folder / "roles")
    own, file = folder / "roles" / "dealer", folder / "role.pem"
    valid = b"".join((own / name).read_bytes() for name in ("dealer.pem", "dealer.key", "authority.pem"))

    def read(data: bytes) -> None:
        file.write_bytes(patched(valid, data))
        for context in (server_context, client_context):
            context(Identity(file, file, file))

    yield read


@contextmanager
def authorities(folder: Path) -> Iterator[Read]:
    """The authority's certificate and key, in one file that serves as both."""
    init(folder / "roles")
    own = folder / "roles" / AUTHORITY
    valid = b"".join((own / f"authority.{end}").read_bytes() for end in ("pem", "key"))

    def read(data: bytes) -> None:
        for name in ("authority.pem", "authority.key"):
            (own / name).write_bytes(patched(valid, data))
        issue(folder / "roles", "client")

    yield read


READS = ("secformer/roles/settings.py",)
TARGETS = (
    Target("party-settings", READS, settings(load_party), lines(*WORDS), below=("tomllib",)),
    Target("dealer-settings", READS, settings(load_dealer), lines(*WORDS), below=("tomllib",)),
    Target("client-settings", READS, settings(load_client), lines(*WORDS), below=("tomllib",)),
    Target("identity", ("mpc/net/tls.py",), identities, longest=256),
    Target("authority", ("secformer/roles/certificates.py",), authorities, longest=256),
)
