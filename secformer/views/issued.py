"""Certificates that were issued or revoked, for `init`, `certify` and `revoke`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.roles.certificates import Issued, Revoked


def issued(made: Sequence[Issued], advice: str) -> RenderableType:
    """A row per certificate, and what to do with them."""
    table = Table("role", "name", "certificate", "valid until")
    for m in made:
        table.add_row(m.role, m.name, str(m.certificate), f"{m.until:%Y-%m-%d}")
    return Group(table, Text(advice))


def issued_json(made: Sequence[Issued]) -> dict[str, Any]:
    return {"certificates": [{"role": m.role, "name": m.name, "certificate": str(m.certificate),
                              "until": m.until.isoformat()} for m in made]}


def revoked(made: Sequence[Revoked], advice: str) -> RenderableType:
    """A row per certificate, and what to do with the list."""
    table = Table("name", "serial number")
    for m in made:
        table.add_row(m.name, f"{m.serial:x}")
    return Group(table, Text(advice))


def revoked_json(made: Sequence[Revoked], path: Path) -> dict[str, Any]:
    return {"revoked": [{"name": m.name, "serial": f"{m.serial:x}"} for m in made], "list": str(path)}
