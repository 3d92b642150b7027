"""What `secformer audit` found: in a log, and in receipts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.roles.chain import Verdict
from secformer.roles.kept_receipts import Verdict as Receipts


def verified_json(verdict: Verdict) -> dict[str, Any]:
    return {"holds": verdict.bad is None, "bad": vars(verdict.bad) if verdict.bad is not None else None,
            "role": verdict.role, "chain": verdict.chain, "files": verdict.files, "first": verdict.first,
            "head": verdict.head.shown, "signatures": verdict.anchors, "signed_up_to": verdict.anchored,
            "trusted": verdict.trusted, "ended": verdict.ended, "cut": verdict.cut, "events": dict(verdict.events),
            "outcomes": dict(verdict.outcomes)}


def verified(verdict: Verdict) -> RenderableType:
    table = Table("fact", "value")
    for name, value in (("role", verdict.role), ("chain", verdict.chain), ("files", str(verdict.files)),
                        ("lines", f"{verdict.first} to {verdict.head.number}"), ("head", verdict.head.shown),
                        ("events", _counts(verdict.events)), ("outcomes", _counts(verdict.outcomes)),
                        ("signatures", f"{verdict.anchors}, over the lines up to {verdict.anchored}; "
                         + ("certificates of this authority" if verdict.trusted else "certificates not checked: give "
                            "--authority"))):
        table.add_row(name, value)
    if verdict.bad is not None:
        end = f"Does not hold from {verdict.bad.file}, line {verdict.bad.line} on: {verdict.bad.problem}."
    elif verdict.ended:
        end = "Every line holds. The role ended in order."
    else:
        end = ("Every line holds. The log has no orderly end: the role still runs, or crashed, or the end was removed. "
               "Only a head that was noted elsewhere tells (--head).")
    cut = [Text(f"{verdict.cut} bytes at the end are not a whole line.")] if verdict.cut else []
    return Group(table, *cut, Text(end))


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def receipts_json(verdict: Receipts) -> dict[str, Any]:
    return {"holds": verdict.bad is None, "bad": vars(verdict.bad) if verdict.bad is not None else None,
            "receipts": verdict.receipts, "in_logs": verdict.found, "trusted": verdict.trusted,
            "revocations_checked": False}


def receipts(verdict: Receipts) -> RenderableType:
    table = Table("fact", "value")
    logs = ", ".join(f"{count} in {party}'s log" for party, count in sorted(verdict.found.items()))
    for name, value in (("requests with two receipts that hold", str(verdict.receipts)),
                        ("lines of audit logs", logs or "not checked: give --log"),
                        ("certificates", "of this authority" if verdict.trusted else "not checked: give --authority"),
                        ("revocations", "not checked here: a client checks them when it gets a receipt")):
        table.add_row(name, value)
    if verdict.bad is not None:
        end = f"Does not hold: {verdict.bad.file}, line {verdict.bad.line}: {verdict.bad.problem}."
    else:
        end = "Every receipt holds."
    return Group(table, Text(end))
