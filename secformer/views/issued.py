"""Certificates that were issued, for `init` and `certify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.roles.certificates import Issued


def issued(made: Sequence[Issued], advice: str) -> RenderableType:
    """A row per certificate, and what to do with them."""
    table = Table("role", "name", "certificate", "valid until")
    for m in made:
        table.add_row(m.role, m.name, str(m.certificate), f"{m.until:%Y-%m-%d}")
    return Group(table, Text(advice))


def issued_json(made: Sequence[Issued]) -> dict[str, Any]:
    return {"certificates": [{"role": m.role, "name": m.name, "certificate": str(m.certificate),
                              "until": m.until.isoformat()} for m in made]}
