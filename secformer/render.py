"""What the commands show: rich tables for people, plain dicts for `--json`. Nothing here prints or computes on shares.

B texts, T tokens, C hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.models.run.networks import LAN, NETWORKS, WAN
from secformer.protocols.papers import PAPERS, Cited, citations

if TYPE_CHECKING:
    from secformer.models.distill.evaluate import Evaluation
    from secformer.models.ranges.profile import RangeProfile
    from secformer.models.run.check import Check
    from secformer.models.run.comparison import Comparison, Row
    from secformer.models.run.output import SecureOutput
    from secformer.mpc.meter import Cost

Texts = list[str] | list[tuple[str, str]]
ANSWERS = ("labels", "probabilities", "logits", "start_logits", "end_logits", "embeddings")


# ---- demo ------------------------------------------------------------------------------------------------------------


def demo(texts: Texts, secure: SecureOutput, plain: SecureOutput) -> RenderableType:
    table = Table()
    table.add_column("text", overflow="fold", max_width=48)
    for name in ("secure", "probability", "plaintext", "probability"):
        table.add_column(name, justify="right" if name == "probability" else "left")
    for i, text in enumerate(texts):
        table.add_row(_text(text), *_verdict(secure, i), *_verdict(plain, i))
    far = f"largest difference of a probability: {_farthest(secure, plain):.1e}"
    heading = Text("Computed on shares, with the plaintext model's answer beside it")
    return Group(heading, table, Text(far), *_ending(secure))


def demo_json(texts: Texts, secure: SecureOutput, plain: SecureOutput) -> dict[str, Any]:
    return {
        "texts": _plain(texts),
        "secure": secure.as_dict(),
        "plaintext": {k: v for k, v in plain.as_dict().items() if k in ("labels", "probabilities", "logits")},
        "max_probability_difference": _farthest(secure, plain),
    }


def _verdict(out: SecureOutput, i: int) -> tuple[str, str]:
    if out.labels is None or out.probabilities is None:
        return "-", "-"
    return str(out.labels[i]), f"{out.probabilities[i].max():.4f}"


def _farthest(a: SecureOutput, b: SecureOutput) -> float:
    if a.probabilities is None or b.probabilities is None:
        return 0.0
    return float(np.abs(a.probabilities - b.probabilities).max())


# ---- infer -----------------------------------------------------------------------------------------------------------


def infer(texts: Texts, out: SecureOutput) -> RenderableType:
    return Group(_answers(texts, out), *_ending(out))


def infer_json(texts: Texts, out: SecureOutput) -> dict[str, Any]:
    return {"texts": _plain(texts), **out.as_dict()}


def _answers(texts: Texts, out: SecureOutput) -> Table:
    table = Table()
    table.add_column("text", overflow="fold", max_width=48)
    if out.start_logits is not None and out.end_logits is not None:
        rows = [(str(s.argmax()), str(e.argmax())) for s, e in zip(out.start_logits, out.end_logits, strict=True)]
        names = ("start token", "end token")
    elif out.labels is not None and out.probabilities is not None:
        rows = [_labelled(label, p) for label, p in zip(out.labels, out.probabilities, strict=True)]
        names = ("label", "probability")
    elif out.encoder_only:
        unit = out.embeddings
        rows = [(" ".join(f"{v:+.3f}" for v in e[:4]) + " ...", f"{e @ unit[0]:.4f}") for e in unit]
        names = (f"embedding ({unit.shape[1]} numbers)", "cosine to the first")
    else:
        logits = np.zeros((len(texts), 1)) if out.logits is None else out.logits
        rows = [(" x ".join(map(str, each.shape)), " ".join(f"{v:.4f}" for v in each.reshape(-1)[:4]))
                for each in logits]
        names = ("logits", "first of them (--json has all)")
    for name in names:
        table.add_column(name, overflow="fold")
    for text, row in zip(texts, rows, strict=True):
        table.add_row(_text(text), *map(Text, row))
    return table


def _labelled(label: Sequence[str], probabilities: np.ndarray) -> tuple[str, str]:
    if isinstance(label, str):
        return label, f"{probabilities.max():.4f}"
    if probabilities.ndim == 1:  # several labels a text
        return ", ".join(label) or "(none)", " ".join(f"{p:.4f}" for p in probabilities)
    best = probabilities.max(axis=-1)[: len(label)]  # a label a token
    return " ".join(label), f"{best.min():.4f} to {best.max():.4f}"


# ---- cost ------------------------------------------------------------------------------------------------------------


def _ending(out: SecureOutput) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if out.cost is not None:
        parts += [Text("\nCost, both parties; bytes are both directions together"), cost(out.cost), _networks(out.cost)]
    return [*parts, *(Text(f"note: {note}") for note in out.notes)]


def cost(total: Cost) -> Table:
    """The leaves of a cost tree by kind, largest traffic first, then the whole."""
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


def _figures(c: Cost) -> tuple[str, ...]:
    return (f"{c.seconds:.2f}", f"{c.offline_seconds:.2f}", f"{c.bytes / 1e6:.2f}", str(c.rounds),
            f"{c.dealer_bytes / 1e6:.2f}")


def _networks(total: Cost) -> Text:
    parts = [f"{network.online(total):.1f} s at {network}" for network in NETWORKS]
    return Text(f"predicted online time between machines: {'; '.join(parts)}")


# ---- training and evaluation -----------------------------------------------------------------------------------------


def trained(out: str, task: str, found: Mapping[str, float]) -> RenderableType:
    return Text(f"{out}: {task} dev {_scores(found)}")


def trained_json(out: str, task: str, found: Mapping[str, float]) -> dict[str, Any]:
    return {"out": out, "task": task, "dev": dict(found)}


def _scores(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in found.items())


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
        parts += [Text(f"{agreed}largest difference of a logit: {found.error:.1e}"),
                  Text("\nCost of all examples, both parties; bytes are both directions together"), cost(found.cost)]
    return Group(*parts, *(Text(f"note: {note}") for note in found.notes))


# ---- compare ---------------------------------------------------------------------------------------------------------


def compare(texts: Texts, compared: Comparison) -> RenderableType:
    table = Table()
    table.add_column("recipe")
    names = ("same labels", "error", "cosine", "seconds", "MB", "rounds", f"{LAN.name} s", f"{WAN.name} s")
    for name in names:
        table.add_column(name, justify="right")
    for row in compared.rows:
        if row.cost is not None:
            table.add_row(Text(row.recipe + (" *" if row.student else "")), *_compared(row, row.cost))
        else:
            table.add_row(Text(row.recipe), "did not run", *("-",) * (len(names) - 1))
    heading = Text(f"The recipes against plaintext on {len(texts)} text(s); error and cosine are of {compared.answer}")
    said = [f"{row.recipe} did not run: {row.problem}" for row in compared.rows if row.problem]
    said += [f"note: {note}" for note in comparison_notes(compared)]
    said += [f"note: {', '.join(names)}: {note}" for note, names in notes_of(compared).items()]
    return Group(heading, table, *map(Text, said))


def notes_of(compared: Comparison) -> dict[str, list[str]]:
    """Each note on single recipes, and the recipes that it is on."""
    found: dict[str, list[str]] = {}
    for row in compared.rows:
        for note in row.notes:
            found.setdefault(note, []).append(row.recipe)
    return found


def _compared(row: Row, cost: Cost) -> tuple[str, ...]:
    return (
        "-" if row.agreement is None else f"{row.agreement:.0%}", f"{row.error or 0.0:.1e}", f"{row.cosine or 0.0:.4f}",
        f"{cost.seconds:.2f}", f"{cost.bytes / 1e6:.2f}", str(cost.rounds), f"{LAN.online(cost):.2f}",
        f"{WAN.online(cost):.1f}",
    )


def comparison_notes(compared: Comparison) -> list[str]:
    """What a reader of the comparison should know."""
    students = [row.recipe for row in compared.rows if row.student]
    notes = [
        "seconds are measured here, online, all roles in one process; MB are both directions, rounds exchanges that "
        f"wait on each other; {LAN.name} ({LAN} a round) and {WAN.name} ({WAN} a round) are online seconds predicted "
        "from them",
    ]
    if students:
        made = f"the recipe {compared.trained_for!r}" if compared.trained_for else "exact functions"
        notes.append(f"* other functions than this model was trained for, which need a model distilled for them: "
                     f"{', '.join(students)}. This model was made for {made}; what the others cost holds in any case")
    return notes


def compare_json(texts: Texts, compared: Comparison) -> dict[str, Any]:
    plain = compared.plain.as_dict()
    return {
        "texts": _plain(texts),
        "model": compared.model,
        "trained_for": compared.trained_for,
        "answer": compared.answer,
        "networks": {n.name: {"latency": n.latency, "bandwidth": n.bandwidth} for n in NETWORKS},
        "plaintext": {name: plain[name] for name in ANSWERS if name in plain},
        "recipes": [_row_json(row) for row in compared.rows],
        "notes": comparison_notes(compared),
    }


def _row_json(row: Row) -> dict[str, Any]:
    from secformer.models.run.comparison import parts

    facts: dict[str, Any] = {"recipe": row.recipe, "ran": row.cost is not None, "problem": row.problem or None,
                             "needs_distilled_model": row.student}
    if row.cost is None or row.output is None:
        return facts
    answers = row.output.as_dict()
    return facts | {
        "label_agreement": row.agreement, "max_error": row.error, "min_cosine": row.cosine,
        **_cost_json(row.cost),
        "predicted_seconds": {n.name: {"online": n.online(row.cost), "ahead": n.ahead(row.cost)} for n in NETWORKS},
        "parts": {name: _cost_json(c) for name, c in parts(row.cost).items()},
        "provisioning_bytes": row.provisioning.offline_bytes if row.provisioning is not None else 0,
        "answers": {name: answers[name] for name in ANSWERS if name in answers},
        "notes": list(row.notes),
    }


def _cost_json(c: Cost) -> dict[str, Any]:
    return {"seconds": c.seconds, "offline_seconds": c.offline_seconds, "bytes": c.bytes, "rounds": c.rounds,
            "dealer_bytes": c.dealer_bytes}


# ---- check, profile --------------------------------------------------------------------------------------------------


def check(texts: Texts, report: Check) -> RenderableType:
    parts: list[RenderableType] = [Text("The exact model's answers, in plaintext"), _answers(texts, report.reference)]
    if report.errors:
        errors = Table()
        errors.add_column("result")
        errors.add_column("largest error", justify="right")
        for name, error in report.errors.items():
            errors.add_row(name, f"{error:.1e}")
        parts += [Text("\nHow far the recipe is from them, without fixed point"), errors]
    verdict = "all texts stay within it" if report.ok else "NOT all texts stay within it"
    parts.append(Text(f"range profile: {report.profile_source}; {verdict}"))
    parts += [Text(f"  {violation}") for violation in report.violations]
    parts += [Text(f"  {report.problem}")] if report.problem else []
    return Group(*parts)


def check_json(texts: Texts, report: Check) -> dict[str, Any]:
    reference = report.reference.as_dict()
    return {
        "texts": _plain(texts),
        "within": report.ok,
        "profile": report.profile_source,
        "errors": report.errors,
        "problem": report.problem or None,
        "violations": [
            {"site": v.site, "quantity": v.quantity, "found": [v.found.low, v.found.high],
             "allowed": [v.allowed.low, v.allowed.high]}
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
    heading = Text(f"Ranges over {measured.texts} texts, {measured.tokens} tokens, functions: {measured.design}")
    return Group(heading, table, Text(f"written to {path}, used with a margin of {measured.margin:g}"))


def profile_json(measured: RangeProfile, path: Path) -> dict[str, Any]:
    sites = {s: {q: [r.low, r.high] for q, r in quantities.items()} for s, quantities in measured.sites.items()}
    return {"path": str(path), "design": measured.design, "texts": measured.texts, "tokens": measured.tokens,
            "margin": measured.margin, "sites": sites}


# ---- papers ----------------------------------------------------------------------------------------------------------


def papers() -> RenderableType:
    table = Table()
    table.add_column("paper", overflow="fold", ratio=3)
    table.add_column("function: what it takes", overflow="fold", ratio=2)
    for key, paper in PAPERS.items():
        uses = [f"{cited.function}: {cited.citation.where}" for cited in _uses(key)]
        table.add_row(Text(str(paper)), Text("\n".join(uses) or "-"), end_section=True)
    return table


def papers_json() -> dict[str, Any]:
    return {
        "papers": [
            {"key": key, "authors": paper.authors, "year": paper.year, "title": paper.title, "venue": paper.venue,
             "functions": [{"name": cited.function, "where": cited.citation.where} for cited in _uses(key)]}
            for key, paper in PAPERS.items()
        ]
    }


def _uses(key: str) -> list[Cited]:
    return [cited for cited in citations() if cited.citation.paper_key == key]


def _text(text: Sequence[str]) -> Text:
    return Text(shown(text))


def shown(text: Sequence[str]) -> str:
    """A text, or a pair, as one line says it."""
    return text if isinstance(text, str) else " | ".join(text)


def _plain(texts: Texts) -> list[str | list[str]]:
    return [t if isinstance(t, str) else list(t) for t in texts]
