"""Which pages' origins may ask a party from a browser, and what the party says to browsers about it (CORS)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from ipaddress import AddressValueError, IPv6Address
from pathlib import Path
from typing import Any, ClassVar, Self

from secformer.models.run.options import DURATION, is_duration
from secformer.mpc.errors import SettingsError
from secformer.mpc.net.tcp import split_address
from secformer.mpc.net.tls import Identity

Header = tuple[bytes, bytes]
LONGEST_TOKEN = 900.0   # seconds
MOST_ORIGINS = 64
METHODS = "GET, POST, DELETE"
ALLOWED = "authorization, content-type, x-request-id, traceparent"
EXPOSED = "Retry-After, X-Request-Id, X-Secformer-Receipt"  # headers of answers that a page may read
MAX_AGE = 600           # seconds for which a browser need not ask again whether it may ask
VARY: Header = (b"vary", b"Origin")
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})  # a browser's own machine, to which it trusts plain HTTP
_USUAL = {"http": "80", "https": "443"}                  # ports that browsers leave out
_ORIGIN = re.compile(r"(https?)://([a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])(?::([1-9][0-9]{0,4}))?", re.ASCII)


@dataclass(frozen=True)
class Browsers:
    """A party's port for browsers.

    certificate and key are those that browsers accept; None: the role's own.
    """

    address: tuple[str, int]
    origins: list[str] = field(default_factory=list)
    token_seconds: float = LONGEST_TOKEN
    certificate: Path | None = None
    key: Path | None = None

    ABOUT: ClassVar = {
        "address": "address that this party listens on for browsers (HTTPS without client certificates)",
        "origins": "origins of the pages that may ask, exactly as browsers send them: https, or http on the browser's "
                   "own machine",
        "token_seconds": "how many seconds a client's token may hold",
        "certificate": "PEM files of a certificate that browsers accept, and of its key; \"\": those of this role",
        "key": "its key"}

    def __post_init__(self) -> None:
        if not self.origins or len(self.origins) > MOST_ORIGINS:
            raise SettingsError(f"browsers.origins must name 1 to {MOST_ORIGINS} origins of pages, got "
                                f"{len(self.origins)}; without a page, leave [browsers] out")
        for origin in self.origins:
            require_origin(origin)
        if not is_duration(self.token_seconds):
            raise SettingsError(f"browsers.token_seconds must be {DURATION}, got {self.token_seconds!r}")
        if (self.certificate is None) != (self.key is None):
            raise SettingsError("browsers.certificate and browsers.key belong together: give both files or neither")

    def identity(self, role: Identity) -> Identity:
        """The files that this port shows, where the role has those."""
        if self.certificate is None or self.key is None:
            return role
        return Identity(role.authority, self.certificate, self.key)

    @classmethod
    def read(cls, given: Any, folder: Path) -> Self:
        """From the table of a settings file in `folder`. Raises SettingsError."""
        names = [f.name for f in fields(cls)]
        if not isinstance(given, dict) or set(given) - set(names) or "address" not in given:
            raise SettingsError(f"[browsers] must be a table with the key address, and of {', '.join(names[1:])} what "
                                f"is needed; got {given!r}")
        if not isinstance(origins := given.get("origins", []), list):
            raise SettingsError(f"browsers.origins must be a list of origins, got {origins!r}")
        for value in (given["address"], *(given.get(name, "") for name in ("certificate", "key")), *origins):
            if not isinstance(value, str):
                raise SettingsError(f"browsers: address, certificate, key and each origin must be strings, got "
                                    f"{value!r}")
        files = (folder / given[name] if given.get(name) else None for name in ("certificate", "key"))
        return cls(split_address(given["address"]), origins, given.get("token_seconds", LONGEST_TOKEN), *files)


def require_origin(origin: str) -> None:
    """Raises SettingsError unless this is the origin of a page as a browser sends it, from where scripts come
    unchanged."""
    found = _ORIGIN.fullmatch(origin)
    if found is None or not _host(found[2]) or int(found[3] or 1) > 65535 or found[3] == _USUAL[found[1]]:
        raise SettingsError(f"an origin is https://host or https://host:port as browsers send it: in lower case, "
                            f"without the usual port, without a path and without *; got {origin!r}")
    if found[1] == "http" and found[2] not in _LOCAL:
        raise SettingsError(f"the origin {origin} may be changed on its way to a browser; pages come over https, or "
                            f"from the browser's own machine ({', '.join(sorted(_LOCAL))})")


def _host(host: str) -> bool:
    """Whether an address in brackets is one, in its short form."""
    try:
        return host[0] != "[" or str(IPv6Address(host[1:-1])) == host[1:-1]
    except AddressValueError:
        return False


class Asked:
    """What a request says of the page that it comes from: exactly the headers that browsers decide by."""

    def __init__(self, method: str, headers: Sequence[Header]):
        named = [value for name, value in headers if name == b"origin"]
        self.origin = b",".join(named) if named else None  # of two, neither is believed
        self.preflight = (method == "OPTIONS" and self.origin is not None
                          and any(name == b"access-control-request-method" for name, _ in headers))

    def allowed(self, origins: Sequence[str]) -> bool:
        """Whether the page may ask. What comes without an origin comes from no page."""
        return self.origin is None or self.origin in [each.encode() for each in origins]

    def answer(self) -> list[Header]:
        """For any answer to an allowed origin: its page may read it."""
        if self.origin is None:
            return [VARY]
        return [VARY, (b"access-control-allow-origin", self.origin),
                (b"access-control-expose-headers", EXPOSED.encode())]

    def permission(self) -> list[Header]:
        """For the answer to a pre-flight of an allowed origin: what its page may ask."""
        return [VARY, (b"access-control-allow-origin", self.origin or b""),
                (b"access-control-allow-methods", METHODS.encode()),
                (b"access-control-allow-headers", ALLOWED.encode()),
                (b"access-control-max-age", str(MAX_AGE).encode())]
