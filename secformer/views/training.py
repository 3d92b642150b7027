"""Scores of classifiers: those of `finetune` and `distill` on the dev set, and those of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.models.distill.evaluate import Evaluation
from secformer.views.costs import cost_table


def trained(out: str, task: str, found: Mapping[str, float]) -> RenderableType:
    scores = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
    return Text(f"{out}: {task} dev {scores}")


def trained_json(out: str, task: str, found: Mapping[str, float]) -> dict[str, Any]:
    return {"out": out, "task": task, "dev": dict(found)}


def evaluation(found: Evaluation) -> RenderableType:
    table = Table()
    table.add_column(f"{found.task}, {found.examples} examples")
    for name in found.plain:
        table.add_column(name, justify="right")
    table.add_row("plaintext", *(f"{v:.4f}" for v in found.plain.values()))
    parts: list[RenderableType] = [table]
    if found.secure is not None and found.cost is not None:
        table.add_row(f"secure, {found.recipe}", *(f"{v:.4f}" for v in found.secure.values()))
        agreed = "" if found.agreement is None else f"same labels: {found.agreement:.2%}; "
        parts += [Text(f"{agreed}largest difference between two logits: {found.error:.1e}"),
                  Text("\nCost of all examples at both parties; MB count both directions"), cost_table(found.cost)]
    return Group(*parts, *(Text(f"note: {note}") for note in found.notes))


def evaluation_json(model: str, found: Evaluation) -> dict[str, Any]:
    return {"model": model, **found.as_dict()}
