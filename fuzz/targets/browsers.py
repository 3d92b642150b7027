"""What pages in browsers show a party: tokens, and requests at the port for browsers.

`authority.pem` beside this file issued the certificates in the kept tokens. Its key is not kept. The clock stands
when the authority was made.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from cryptography import x509

from fuzz.mutators import json_text, raw
from fuzz.target import Read, Target, require
from fuzz.targets.ports import http, party, serving
from secformer.mpc.net.places import Places
from secformer.mpc.net.tls import role_of
from secformer.roles.browsers import BrowserProtocol, Gate
from secformer.roles.certificates import SKEW
from secformer.roles.connections import Clients
from secformer.roles.tokens import Token, Tokens

AUTHORITY = Path(__file__).parent / "authority.pem"
MODEL, ORIGIN = "cd" * 32, "https://page.example"
_CLAIMS = json_text()


class Unrevoked:
    """Credentials under which nothing is revoked; and a context."""

    generation = 0

    def objection(self, certificate: Any) -> str:
        return ""


def made() -> float:
    """When the authority was made."""
    return (x509.load_pem_x509_certificate(AUTHORITY.read_bytes()).not_valid_before_utc + SKEW).timestamp()


def checking() -> Tokens:
    """Party 0's check."""
    return Tokens(0, MODEL, 900.0, Unrevoked(), AUTHORITY, made)  # type: ignore[arg-type]


@contextmanager
def tokens(_: Path) -> Iterator[Read]:
    check = checking().check

    def read(data: bytes) -> None:
        certificate, text = check(data.decode("latin-1")), data.decode("latin-1")
        require(role_of(certificate) == "client" and Token.read(text).text == text, "a token has one meaning")

    yield read


@contextmanager
def browsers_port(folder: Path) -> Iterator[Read]:
    gate = Gate([ORIGIN], checking(), Unrevoked(), lambda why: None)  # type: ignore[arg-type]
    protocol = partial(BrowserProtocol, gate=gate, connected=Clients(), clients=Places(2), too_many=Places(2))
    with party(folder) as web, serving(web.app(), protocol) as read:
        yield read


def token(data: bytes, most: int, chance: Random) -> bytes:
    """One part of a token, as JSON or as bytes."""
    parts = data.split(b".")
    if len(parts) != 3 or not chance.randrange(8):
        return raw(data, most, chance)
    place = chance.randrange(3)
    with suppress(ValueError):
        part = urlsafe_b64decode(parts[place] + b"=" * (-len(parts[place]) % 4))
        parts[place] = urlsafe_b64encode((raw if place else _CLAIMS)(part, most, chance)).rstrip(b"=")
    return b".".join(parts)[:most]


def shown(data: bytes, most: int, chance: Random) -> bytes:
    """The token that a request shows, or the request."""
    before, bearer, rest = data.partition(b"Bearer ")
    if not bearer or chance.randrange(4):
        return http(data, most, chance)
    found, end, after = rest.partition(b"\r\n")
    return (before + bearer + token(found, most, chance) + end + after)[:most]


TARGETS = (
    Target("tokens", ("secformer/roles/tokens.py", "secformer/roles/signing.py"), tokens, token),
    Target("browsers-port", ("secformer/roles/browsers.py", "secformer/roles/origins.py", "secformer/roles/tokens.py"),
           browsers_port, shown, below=("h11",)),
)
