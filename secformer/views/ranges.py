"""Ranges of a model's values: whether texts stay within them, for `check`, and how wide they are, for `profile`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.models.ranges.profile import RangeProfile
from secformer.models.run.check import Check
from secformer.views.answers import answer_table
from secformer.views.texts import Refused, Texts, refused_json, refused_lines, texts_json


def check(texts: Texts, report: Check | None, refused: Sequence[Refused] = ()) -> RenderableType:
    """What holds for the texts together, and a line for each text that was left out. Without a report, those alone."""
    if report is None:
        return Group(*refused_lines(refused))
    parts: list[RenderableType] = [Text("The exact model's answers, in plaintext"),
                                   answer_table(texts, report.reference)]
    if report.errors:
        errors = Table()
        errors.add_column("result")
        errors.add_column("largest error", justify="right")
        for name, error in report.errors.items():
            errors.add_row(name, f"{error:.1e}")
        parts += [Text("\nThe recipe's error against them, without the error of fixed point"), errors]
    verdict = "NOT all texts stay within it"
    if report.ok:
        verdict = "the other texts stay within it" if refused else "all texts stay within it"
    parts.append(Text(f"range profile: {report.profile_source}; {verdict}"))
    parts += [Text(f"  {violation}") for violation in report.violations]
    parts += [Text(f"  {report.problem}")] if report.problem else []
    parts += refused_lines(refused)
    return Group(*parts)


def check_json(texts: Texts, report: Check | None, refused: Sequence[Refused] = ()) -> dict[str, Any]:
    facts: dict[str, Any] = {"texts": texts_json(texts), "refused": refused_json(refused)}
    if report is None:
        return facts | {"within": False}
    reference = report.reference.as_dict()
    return facts | {
        "within": report.ok and not refused,
        "profile": report.profile_source,
        "errors": report.errors,
        "problem": report.problem or None,
        "violations": [
            {"text": v.text, "site": v.site, "quantity": v.quantity, "found": [v.found.low, v.found.high],
             "allowed": [v.allowed.low, v.allowed.high], "factor": v.factor}
            for v in report.violations
        ],
        "exact": {name: reference[name] for name in ("labels", "probabilities", "scores", "answers", "logits")
                  if name in reference},
    }


def profile(measured: RangeProfile, path: Path) -> RenderableType:
    table = Table()
    for name in ("site", "quantity"):
        table.add_column(name)
    for name in ("lowest", "highest"):
        table.add_column(name, justify="right")
    for site, quantities in measured.sites.items():
        for quantity, r in quantities.items():
            table.add_row(site, quantity, f"{r.low:.4g}", f"{r.high:.4g}")
    heading = Text(f"Ranges over {measured.texts} texts ({measured.tokens} tokens), with the functions of "
                   f"{measured.design}")
    return Group(heading, table, Text(f"written to {path}; runs widen them by a margin of {measured.margin:g}"))


def profile_json(measured: RangeProfile, path: Path) -> dict[str, Any]:
    sites = {s: {q: [r.low, r.high] for q, r in quantities.items()} for s, quantities in measured.sites.items()}
    return {"path": str(path), "design": measured.design, "texts": measured.texts, "tokens": measured.tokens,
            "margin": measured.margin, "sites": sites}
