"""The recipes side by side, for `compare`: one table, and one JSON object per recipe."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.models.run.comparison import Comparison, Row, parts
from secformer.models.run.networks import LAN, NETWORKS, WAN
from secformer.mpc.meter import Cost
from secformer.views.answers import ANSWERS
from secformer.views.costs import cost_json
from secformer.views.texts import Texts, texts_json

COLUMNS = ("same labels", "error", "cosine", "seconds", "MB", "rounds", f"{LAN.name} s", f"{WAN.name} s")


def comparison(texts: Texts, compared: Comparison) -> RenderableType:
    table = Table()
    table.add_column("recipe")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for row in compared.rows:
        if row.cost is not None:
            table.add_row(Text(row.recipe + (" *" if row.student else "")), *_figures(row, row.cost))
        else:
            table.add_row(Text(row.recipe), "did not run", *("-",) * (len(COLUMNS) - 1))
    heading = Text(f"The recipes against plaintext on {len(texts)} text(s); error and cosine compare "
                   f"{compared.answer}")
    said = [f"{row.recipe} did not run: {row.problem}" for row in compared.rows if row.problem]
    said += [f"note: {note}" for note in notes(compared)]
    said += [f"note: {', '.join(names)}: {note}" for note, names in notes_by_recipe(compared).items()]
    return Group(heading, table, *map(Text, said))


def comparison_json(texts: Texts, compared: Comparison) -> dict[str, Any]:
    plain = compared.plain.as_dict()
    return {
        "texts": texts_json(texts),
        "model": compared.model,
        "trained_for": compared.trained_for,
        "answer": compared.answer,
        "networks": {n.name: {"latency": n.latency, "bandwidth": n.bandwidth} for n in NETWORKS},
        "plaintext": {name: plain[name] for name in ANSWERS if name in plain},
        "recipes": [_row_json(row) for row in compared.rows],
        "notes": notes(compared),
    }


def notes(compared: Comparison) -> list[str]:
    """What a reader of the table needs to know: how figures were obtained, and which recipes need another model."""
    said = [
        "seconds are online seconds, measured on this machine with all roles in one process; MB count both directions; "
        "rounds are exchanges that must wait for each other; "
        f"{LAN.name} ({LAN} per round) and {WAN.name} ({WAN} per round) are online seconds predicted from these "
        "figures",
    ]
    students = [row.recipe for row in compared.rows if row.student]
    if students:
        made = f"the recipe {compared.trained_for!r}" if compared.trained_for else "exact functions"
        said.append(f"* this model was trained for {made}. These recipes compute other functions and need a model "
                    f"distilled for them: {', '.join(students)}. Here only their cost is meaningful")
    return said


def notes_by_recipe(compared: Comparison) -> dict[str, list[str]]:
    """Each note that a row has, and the recipes that have it."""
    found: dict[str, list[str]] = {}
    for row in compared.rows:
        for note in row.notes:
            found.setdefault(note, []).append(row.recipe)
    return found


def _figures(row: Row, cost: Cost) -> tuple[str, ...]:
    return (
        "-" if row.agreement is None else f"{row.agreement:.0%}", f"{row.error or 0.0:.1e}", f"{row.cosine or 0.0:.4f}",
        f"{cost.seconds:.2f}", f"{cost.bytes / 1e6:.2f}", str(cost.rounds), f"{LAN.online(cost):.2f}",
        f"{WAN.online(cost):.1f}",
    )


def _row_json(row: Row) -> dict[str, Any]:
    facts: dict[str, Any] = {"recipe": row.recipe, "ran": row.cost is not None, "problem": row.problem or None,
                             "needs_distilled_model": row.student}
    if row.cost is None or row.output is None:
        return facts
    answers = row.output.as_dict()
    return facts | {
        "label_agreement": row.agreement, "max_error": row.error, "min_cosine": row.cosine,
        **cost_json(row.cost),
        "predicted_seconds": {n.name: {"online": n.online(row.cost), "ahead": n.ahead(row.cost)} for n in NETWORKS},
        "parts": {name: cost_json(c) for name, c in parts(row.cost).items()},
        "provisioning_bytes": row.provisioning.offline_bytes if row.provisioning is not None else 0,
        "answers": {name: answers[name] for name in ANSWERS if name in answers},
        "notes": list(row.notes),
    }
