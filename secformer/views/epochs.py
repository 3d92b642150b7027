"""Epochs that gave way to new ones, for `epoch`."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.roles.rotation import Rotated

SHOWN = 16  # digits of a model's digest
ADVICE = ("The parties join the new epochs by themselves, with their next request or within seconds. They must reach "
          "the dealer for that.")


def rotated(made: Rotated) -> RenderableType:
    """A row per model."""
    table = Table("model", "old epoch", "new epoch")
    for model, old, new in made.epochs:
        table.add_row(model[:SHOWN], old, new)
    return Group(table, Text(ADVICE))


def rotated_json(made: Rotated) -> dict[str, Any]:
    return {"epochs": [{"model": model, "old": old, "new": new} for model, old, new in made.epochs]}
