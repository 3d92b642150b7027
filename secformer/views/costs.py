"""What a run cost: a table of its parts, and predicted times between machines."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from secformer.models.run.networks import NETWORKS
from secformer.models.run.output import SecureOutput
from secformer.mpc.meter import Cost


def ending(out: SecureOutput) -> list[RenderableType]:
    """What stands below answers: their cost, if it was measured, and the run's notes."""
    parts: list[RenderableType] = []
    if out.cost is not None:
        parts += [Text("\nCost at both parties; MB count both directions"), cost_table(out.cost),
                  Text(predicted(out.cost))]
    return [*parts, *(Text(f"note: {note}", style="bold" if "cannot be trusted" in note else "") for note in out.notes)]


def cost_table(total: Cost) -> Table:
    """A row per kind of part, largest traffic first, then the whole run, then what sharing the weights took."""
    table = Table()
    table.add_column("part")
    for name in ("seconds", "offline s", "MB sent", "rounds", "dealer MB"):
        table.add_column(name, justify="right")
    kinds = sorted(total.by_kind().values(), key=lambda c: (-c.bytes, -c.dealer_bytes, c.name))
    for kind in kinds:
        if kind.bytes or kind.rounds or kind.dealer_bytes:
            table.add_row(kind.name, *_figures(kind))
    table.add_section()
    table.add_row("online, all", *_figures(total))
    if total.offline_bytes or total.offline_rounds:
        table.add_row("sharing the weights", "", "", f"{total.offline_bytes / 1e6:.2f}", str(total.offline_rounds), "")
    return table


def predicted(total: Cost) -> str:
    """The time that a run would take between machines, network by network."""
    times = "; ".join(f"{network.online(total):.1f} s at {network}" for network in NETWORKS)
    return f"predicted online time between machines: {times}"


def cost_json(c: Cost) -> dict[str, Any]:
    """A cost's own figures, without those of its parts."""
    return {"seconds": c.seconds, "offline_seconds": c.offline_seconds, "bytes": c.bytes, "rounds": c.rounds,
            "dealer_bytes": c.dealer_bytes}


def _figures(c: Cost) -> tuple[str, ...]:
    return (f"{c.seconds:.2f}", f"{c.offline_seconds:.2f}", f"{c.bytes / 1e6:.2f}", str(c.rounds),
            f"{c.dealer_bytes / 1e6:.2f}")
