"""Names and addresses of roles' machines: which are allowed, where a role listens, and how a certificate names them."""

from __future__ import annotations

import ipaddress
import re

from cryptography import x509

from secformer.mpc.errors import SettingsError
from secformer.mpc.net.tls import DOMAIN

LOOPBACK = "127.0.0.1"
HERE = {LOOPBACK: LOOPBACK, "localhost": LOOPBACK, "::1": "::1"}  # names of this machine, and the addresses to bind
LOCAL = ("localhost", LOOPBACK, "::1")  # how browsers reach this machine from itself
EVERYWHERE, EVERYWHERE_IPV6 = "0.0.0.0", "::"
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")


def is_host(text: str) -> bool:
    """Whether this is an IP address or a host name. Names below `DOMAIN` are not: in certificates, these are roles."""
    try:
        ipaddress.ip_address(text)
        return True
    except ValueError:
        return _HOST.fullmatch(text) is not None and text.lower().rstrip(".").rpartition(".")[2] != DOMAIN


def check_host(role: str, host: str) -> None:
    """Raises SettingsError unless a role's machine can have this name."""
    if not is_host(host):
        raise SettingsError(f"the machine of {role} must be a host name or an IP address, without a port or brackets, "
                            f"and not below .{DOMAIN}, where roles have their names; got {host!r}")


def listens(host: str) -> str:
    """The address that a role must bind so that others reach it at `host`."""
    return HERE.get(host) or (EVERYWHERE_IPV6 if ":" in host else EVERYWHERE)


def named(host: str) -> x509.GeneralName:
    """A host as a certificate names it, and as browsers look for it there: without the zone of an address, which means
    something to one machine only."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return x509.DNSName(host.lower().rstrip("."))
