"""Results of `secformer cells`: how cells do, and which are drained."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.cells.health import CellHealth
from secformer.cells.listing import CellList
from secformer.cells.survey import Overview, Seen
from secformer.roles.telling import Told

NOTHING = "-"
COLORS = {"ready": "green", "drained": "yellow"}  # of the first word of a cell's health


def status_json(found: Overview) -> dict[str, Any]:
    return {"ready": not found.missing, "cells": [_cell_json(cell) for cell in found.cells],
            "notes": list(found.notes)}


def _cell_json(cell: Seen) -> dict[str, Any]:
    parties = cell.health.parties if cell.health is not None else ()
    return {"name": cell.name, "settings": str(cell.settings), "drained": cell.drained, "ready": cell.ready,
            "problem": cell.problem,
            "parties": [{"reached": party.reached, "ready": party.ready, "problem": party.problem,
                         "told": asdict(party.told) if party.told is not None else None} for party in parties]}


def status(found: Overview) -> RenderableType:
    table = Table("cell", "health", "party 0\nwaiting/running", "party 1\nwaiting/running", "material\nahead",
                  "version", "epoch")
    for cell in found.cells:
        health = _health(cell)
        table.add_row(cell.name, Text(health, COLORS.get(health.split()[0], "red")), *_load(cell),
                      _same(cell, lambda told: told.version), _same(cell, lambda told: told.epoch))
    lines = [*(f"{cell.name}: {cell.problem}" for cell in found.cells if cell.problem),
             *(f"Note: {note}." for note in found.notes)]
    return Group(table, *(Text(line) for line in lines))


def _health(cell: Seen) -> str:
    """ready, drained, unreachable, or why not; in few words."""
    if cell.health is None:
        now = "cannot be asked"
    elif cell.ready:
        now = "ready"
    elif not cell.health.reached:
        now = _unreachable(cell.health)
    else:
        now = "not ready" if cell.problem else "not told"
    return f"drained ({now})" if cell.drained else now


def _unreachable(health: CellHealth) -> str:
    gone = [f"party {rank}" for rank, party in enumerate(health.parties) if not party.reached]
    return "unreachable" if len(gone) == len(health.parties) else f"{gone[0]} unreachable"


def _load(cell: Seen) -> tuple[str, str, str]:
    """What waits and runs at each party, and what is stored at party 1."""
    told = [party.told for party in cell.health.parties] if cell.health is not None else [None, None]
    first, second = (f"{each.waiting}/{each.running}" if each is not None else NOTHING for each in told)
    stored = [each.material for each in told if each is not None and each.material is not None]
    return first, second, str(sum(stored)) if stored else NOTHING


def _same(cell: Seen, of: Callable[[Told], str]) -> str:
    """What both parties tell; both values where they differ."""
    return " and ".join(dict.fromkeys(of(told) or NOTHING for told in cell.told)) or NOTHING


def drained_json(listed: CellList, gone: Collection[str]) -> dict[str, Any]:
    return {"list": str(listed.path), "drained": [name for name in listed.names if name in gone],
            "serving": [name for name in listed.names if name not in gone]}


def drained(listed: CellList, gone: Collection[str]) -> RenderableType:
    facts = drained_json(listed, gone)
    lines = [f"{what}: {', '.join(facts[key]) or 'none'}" for what, key in (("drained", "drained"),
                                                                            ("get work", "serving"))]
    lines.append("Running gateways and batch jobs follow within about a second. What a cell has, it finishes.")
    if not facts["serving"]:
        lines.append("Warning: every cell is drained, so nothing is served.")
    return Group(*(Text(line) for line in lines))
