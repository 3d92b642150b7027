"""Settings files, and the PEM files that they name."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fuzz.mutators import json_text, lines
from fuzz.target import Read, Target, require
from secformer.cells.drained import drained, drained_file
from secformer.cells.listing import load_cells
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.net.tls import Identity, client_context, server_context
from secformer.roles.budgets import Budget, Budgets
from secformer.roles.certificates import AUTHORITY, ISSUED, REVOKED, init, issue, revoke
from secformer.roles.origins import Browsers
from secformer.roles.settings import (
    BUDGETS,
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
WORDS = (*KEYS, "revoked =", "[budgets]", "[budgets.clients.alice]", "budgets = {}", "budgets.clients.bob = {}",
         *(f"{f.name} =" for f in (*fields(Budget), *fields(Browsers))), "[browsers]",
         '"https://page.example"', '"http://localhost:8000"', '"*"', "[tls]", "[[tls]]", "{}", "inf", "nan", "0x10",
         "1_000", "1979-05-27", '"[::1]:1"', '"a:99999"', '"":',
         '"""', "'''", '"\\u0000"', "true", "[" * 500, "a." * 500, "{a=" * 400)

CELLS = ("[[cell]]", "[cell]", "cell = []", 'name = "c"', 'settings = "a.toml"', 'settings = "b.toml"', *WORDS[-18:])


def settings(load: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A reader of one role's file: what it reads, written by the template, it reads again as the same."""
    @contextmanager
    def opened(folder: Path) -> Iterator[Read]:
        file = folder / "role.toml"

        def read(data: bytes) -> None:
            file.write_bytes(data)
            found = load(file)
            values = {f.name: getattr(found, f.name) for f in fields(found) if f.name not in (TLS, BUDGETS)}
            tls = {f.name: str(path) for f in fields(Identity) if (path := getattr(found.tls, f.name)) is not None}
            if any(map(_odd, (*values.values(), *tls.values()))):
                return
            file.write_text(template(type(found), values, tls), "utf-8")
            back = load(file)
            if isinstance(found, PartySettings):  # the template has no budgets
                require(Budgets.read(_table(found.budgets)) == found.budgets, "budgets have one meaning")
                back = replace(back, budgets=found.budgets)
            require(back == found, "settings have one meaning")

        yield read

    return opened


def _table(budgets: Budgets) -> dict[str, Any]:
    """Budgets as a settings file holds them."""
    common, *own = ({key: value for key, value in vars(budget).items() if value is not None}
                    for budget in (budgets.common, *budgets.clients.values()))
    return common | {"clients": dict(zip(budgets.clients, own, strict=True))}


def _odd(value: Any) -> bool:
    """Whether a value has characters that the template, which writes names and paths, does not escape."""
    if isinstance(value, Browsers):
        return any(map(_odd, vars(value).values()))
    return any(map(_odd, value)) if isinstance(value, tuple | list) else not str(value).isprintable()


@contextmanager
def cells(folder: Path) -> Iterator[Read]:
    """A list of cells, beside the settings files of two: what it reads, written again, it reads as the same."""
    file, tls = folder / "cells.toml", {"authority": "a.pem", "certificate": "c.pem", "key": "c.key"}
    for name, port in (("a", 1), ("b", 3)):
        given = {"party0": ("localhost", port), "party1": ("localhost", port + 1), "model": "model"}
        (folder / f"{name}.toml").write_text(template(ClientSettings, given, tls), "utf-8")

    def read(data: bytes) -> None:
        file.write_bytes(data)
        found = load_cells(file)
        file.write_text("".join(f"[[cell]]\nname = '{cell.name}'\nsettings = '{cell.settings}'\n" for cell in found))
        require(load_cells(file) == found, "a list has one meaning")

    yield read


@contextmanager
def drained_cells(folder: Path) -> Iterator[Read]:
    """The file that says which cells are drained."""
    file = folder / "cells.toml"

    def read(data: bytes) -> None:
        drained_file(file).write_bytes(data)
        found = drained(file)
        drained_file(file).write_text("".join(f"{name}\n" for name in found))
        require(drained(file) == found, "the file has one meaning")

    yield read


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


@contextmanager
def revocations(folder: Path) -> Iterator[Read]:
    """The authority's list of revoked certificates. Bytes are changed in the PEM file or, where the input begins with
    a bit of 1, in what it encodes. Who read a list refuses who is on it."""
    init(folder / "roles")
    gone = revoke(folder / "roles", "party1")[0].serial
    own, file = folder / "roles" / "dealer", folder / REVOKED
    shown = Identity(own / "authority.pem", own / "dealer.pem", own / "dealer.key", file)
    valid = (own / REVOKED).read_bytes()
    inside = x509.load_pem_x509_crl(valid).public_bytes(serialization.Encoding.DER)
    before, after = b"-----BEGIN X509 CRL-----\n", b"-----END X509 CRL-----\n"

    def read(data: bytes) -> None:
        changed = patched(valid, data[1:])
        if data[:1] > b"\x7f":
            changed = before + base64.encodebytes(patched(inside, data[1:])) + after
        file.write_bytes(changed)
        told = Credentials(shown).objection({"serialNumber": f"{gone:X}"})
        require("revoked" in told, "a list that is accepted is the one that was signed")

    yield read


@contextmanager
def records(folder: Path) -> Iterator[Read]:
    """What the authority has issued. Who revokes by a name has revoked all certificates that the record names."""
    init(folder / "roles")
    own = folder / "roles" / AUTHORITY
    valid = (own / REVOKED).read_bytes()

    def read(data: bytes) -> None:
        (own / ISSUED).write_bytes(data)
        (own / REVOKED).write_bytes(valid)
        made = revoke(folder / "roles", "alice")
        require(bool(made) and len({each.serial for each in made}) == len(made), "each certificate once")
        found = x509.load_pem_x509_crl((own / REVOKED).read_bytes())
        require({each.serial for each in made} == {each.serial_number for each in found}, "all are on the list")

    yield read


READS = ("secformer/roles/settings.py", "secformer/roles/budgets.py")
TARGETS = (
    Target("party-settings", READS, settings(load_party), lines(*WORDS), below=("tomllib",)),
    Target("dealer-settings", READS[:1], settings(load_dealer), lines(*WORDS), below=("tomllib",)),
    Target("client-settings", READS[:1], settings(load_client), lines(*WORDS), below=("tomllib",)),
    Target("cells", ("secformer/cells/listing.py", *READS[:1]), cells, lines(*CELLS), below=("tomllib",)),
    Target("drained", ("secformer/cells/drained.py",), drained_cells, lines("a", "b-1", "# c", "-", "\\x00")),
    Target("identity", ("mpc/net/tls.py",), identities, longest=256),
    Target("authority", ("secformer/roles/certificates.py",), authorities, longest=256),
    Target("revoked", ("mpc/net/credentials.py",), revocations, longest=256),
    Target("issued", ("secformer/roles/certificates.py",), records, json_text()),
)
