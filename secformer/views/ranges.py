"""Ranges of a model's values: whether texts stay within them, for `check`, and how wide they are, for `profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.models.ranges.profile import RangeProfile
from secformer.models.run.check import Check
from secformer.views.answers import answer_table
from secformer.views.texts import Texts, texts_json


def check(texts: Texts, report: Check) -> RenderableType:
    parts: list[RenderableType] = [Text("The exact model's answers, in plaintext"),
                                   answer_table(texts, report.reference)]
    if report.errors:
        errors = Table()
        errors.add_column("result")
        errors.add_column("largest error", justify="right")
        for name, error in report.errors.items():
            errors.add_row(name, f"{error:.1e}")
        parts += [Text("\nThe recipe's error against them, without the error of fixed point"), errors]
    verdict = "all texts stay within it" if report.ok else "NOT all texts stay within it"
    parts.append(Text(f"range profile: {report.profile_source}; {verdict}"))
    parts += [Text(f"  {violation}") for violation in report.violations]
    parts += [Text(f"  {report.problem}")] if report.problem else []
    return Group(*parts)


def check_json(texts: Texts, report: Check) -> dict[str, Any]:
    reference = report.reference.as_dict()
    return {
        "texts": texts_json(texts),
        "within": report.ok,
        "profile": report.profile_source,
        "errors": report.errors,
        "problem": report.problem or None,
        "violations": [
            {"text": v.text, "site": v.site, "quantity": v.quantity, "found": [v.found.low, v.found.high],
             "allowed": [v.allowed.low, v.allowed.high], "factor": v.factor}
            for v in report.violations
        ],
        "exact": {name: reference[name] for name in ("labels", "probabilities", "logits") if name in reference},
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
