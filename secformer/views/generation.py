"""Generated text: what it cost, in one line; and how likely texts are, as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.models.run.generate import Generated, Scored
from secformer.mpc.meter import Cost
from secformer.views.costs import cost_json, cost_table


def cost_line(found: Generated) -> str:
    """Tokens and why they ended; what a token behind the first one cost on average; what the prompt cost."""
    each, prompt = found.per_token, found.prompt_cost
    seconds = 0.0 if each is None else each["seconds"] + each["offline_seconds"]
    speed = "" if each is None else (
        f"{1.0 / seconds if seconds else math.inf:.2f} tokens per second; per token "
        f"{each['bytes'] / 1e6:.2f} MB online, {each['rounds']:.0f} rounds, {each['dealer_bytes'] / 1e6:.2f} MB of the "
        f"dealer; ")
    return (f"{len(found.tokens)} tokens ({found.end.value}); {speed}prompt of {len(found.prompt)} tokens: "
            f"{prompt.seconds + prompt.offline_seconds:.1f} s, {prompt.bytes / 1e6:.1f} MB, {prompt.rounds} rounds")


def generated_json(prompt: str, found: Generated, notes: Sequence[str]) -> dict[str, Any]:
    """Everything that is known of a generation; costs without their parts."""
    return {
        "prompt": prompt, "text": found.text, "end": found.end.value, "trusted": found.trusted,
        "tokens": list(found.tokens), "logprobs": list(found.logprobs), "prompt_tokens": list(found.prompt),
        "cost": {"prompt": cost_json(found.prompt_cost), "per_token": found.per_token,
                 "steps": [{"tokens": step.tokens} | cost_json(step.cost) for step in found.steps]},
        "notes": list(notes)}


def scores(texts: Sequence[str], found: Sequence[Scored], notes: Sequence[str]) -> RenderableType:
    """A row per text, then the cost of all."""
    table = Table()
    table.add_column("text", overflow="fold", max_width=48)
    for name in ("tokens", "log-likelihood", "perplexity"):
        table.add_column(name, justify="right")
    marked = not all(each.trusted for each in found)
    if marked:
        table.add_column("trusted")
    for text, each in zip(texts, found, strict=True):
        row = str(each.tokens), _number(each.log_likelihood), _number(each.perplexity)
        table.add_row(Text(text), *row, *(["yes" if each.trusted else "no"] if marked else []))
    cost = Text("\nCost at both parties; MB count both directions")
    return Group(table, cost, cost_table(_total(found)), *(Text(f"note: {note}") for note in notes))


def scores_json(texts: Sequence[str], found: Sequence[Scored], notes: Sequence[str]) -> dict[str, Any]:
    return {"texts": list(texts),
            "scores": [{"tokens": each.tokens, "log_likelihood": _plain(each.log_likelihood),
                        "perplexity": _plain(each.perplexity), "trusted": each.trusted} for each in found],
            "cost": _total(found).as_dict(), "notes": list(notes)}


def _total(found: Sequence[Scored]) -> Cost:
    return sum((each.cost for each in found[1:]), found[0].cost)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
