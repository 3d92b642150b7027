"""What the tests of deploy/ share: where its files are, systemd's units and compose files read, and how long roles take
to end."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from tree import ROOT

from secformer.gateway import server
from secformer.roles import health, party_server

DEPLOY = ROOT / "deploy"
ROLES = ("dealer", "party0", "party1")
IMAGE = f"registry.example/secformer@sha256:{'0' * 64}"
USER = 10001
# Seconds in which a role, the gateway end in order: see `run_party`, `Monitored.close`, `GatewayServer.close`.
ENDS = {"dealer": 2 * health.GRACE, "gateway": round(server.GRACE + server.LEAVING)} | dict.fromkeys(
    ("party0", "party1"), health.GRACE + round(party_server.ENDING))
_FILLED = re.compile(r"\$\{(\w+)(?::[-?]([^}]*))?\}")


@cache
def unit(name: str) -> list[tuple[str, str, str]]:
    """A systemd unit: section, key and value of each line."""
    found, section = [], ""
    for line in (DEPLOY / "systemd" / name).read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.append((section, key, value))
    return found


def values(name: str, wanted: str) -> list[str]:
    """The values of a unit's key, in order."""
    return [value for _, key, value in unit(name) if key == wanted]


def unit_of(role: str) -> str:
    return "secformer-gateway.service" if role == "gateway" else f"secformer-{role}@.service"


def compose_text(name: str) -> str:
    """A compose file whose variables have their defaults."""
    text = (DEPLOY / "compose" / name).read_text("utf-8")
    return _FILLED.sub(lambda found: IMAGE if found[1] == "SECFORMER_IMAGE" else found[2] or "", text)


def compose(name: str) -> dict[str, Any]:
    import yaml

    loaded: dict[str, Any] = yaml.safe_load(compose_text(name))
    return loaded
