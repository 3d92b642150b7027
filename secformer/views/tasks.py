"""Results of single tasks: rankings, labels, entities, words for masks, answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.models.run import tasks
from secformer.models.run.helpers import Filled, Label, Ranked
from secformer.models.run.output import SecureOutput
from secformer.models.run.tasks import AnswerSpan, Entity
from secformer.views.answers import LEFT_OUT, characters
from secformer.views.costs import ending
from secformer.views.texts import Texts, one_line

NONE = "(none)"  # stands for a text without any result
Lines = Sequence[tuple[str, ...]] | None  # a text's lines: a cell per column; None: the text cannot be trusted


def facts(out: SecureOutput, **found: Any) -> dict[str, Any]:
    """What was given and found, by name, then the cost and the notes, as plain values for JSON."""
    cost = None if out.cost is None else out.cost.as_dict()
    return {name: _plain(value) for name, value in found.items()} | {
        "cost": cost, "notes": list(out.notes), "profile": out.profile_source}


def ranking(found: Sequence[Ranked], out: SecureOutput) -> RenderableType:
    """A row per document, best first; `number` is its place among those given, from 0."""
    table = _table("score", "number", "document")
    for each in found:
        table.add_row(LEFT_OUT if np.isnan(each.score) else f"{each.score:.4f}", str(each.corpus_id), Text(each.text))
    return Group(table, *ending(out))


def labels(texts: Texts, found: Sequence[Sequence[Label] | None], out: SecureOutput) -> RenderableType:
    """A line per label, best first."""
    return _lines(texts, ("label", "score"), [
        None if each is None else [(label.label, f"{label.score:.4f}") for label in each] for each in found], out)


def entities(texts: Texts, found: Sequence[Sequence[Entity] | None], out: SecureOutput) -> RenderableType:
    """A line per entity, in the order of the text."""
    return _lines(texts, ("label", "entity", "score", "characters"), [
        None if each is None else [(e.label, e.text, f"{e.score:.4f}", characters(e.start, e.end)) for e in each]
        for each in found], out)


def words(texts: Texts, found: Sequence[Any], out: SecureOutput) -> RenderableType:
    """A line per word, mask by mask, best first."""
    return _lines(texts, ("mask", "word", "score", "text with the word"), [
        None if each is None else [(str(i), w.token_str, f"{w.score:.4f}", w.sequence)
                                   for i, some in enumerate(_per_mask(each)) for w in some] for each in found], out)


def spans(pairs: Texts, found: Sequence[AnswerSpan | None], out: SecureOutput) -> RenderableType:
    """A line per question and passage."""
    return _lines(pairs, ("answer", "score", "characters"), [
        None if each is None else [(each.text, f"{each.score:.4f}", characters(each.start, each.end))]
        for each in found], out)


def _per_mask(found: Any) -> Sequence[Sequence[Filled]]:
    return [found] if found and isinstance(found[0], Filled) else found


def _lines(texts: Texts, names: tuple[str, ...], lines: Sequence[Lines], out: SecureOutput) -> RenderableType:
    """A table with one or more lines per text; the text stands in the first of them."""
    table, blank = _table("text", *names), [""] * (len(names) - 1)
    for text, some in zip(texts, lines, strict=True):
        rows = [(LEFT_OUT, *blank)] if some is None else some or [(NONE, *blank)]
        for i, row in enumerate(rows):
            table.add_row(Text("" if i else one_line(text)), *map(Text, row))
    return Group(table, *ending(out))


def _table(*names: str) -> Table:
    table = Table()
    for name in names:
        table.add_column(name, overflow="fold", justify="right" if name in ("score", "number") else "left")
    return table


def _plain(value: Any) -> Any:
    """Lists, dicts, strings and numbers, with None for what is not a number."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(each) for name, each in tasks.facts(value).items()}
    return None if isinstance(value, float) and np.isnan(value) else value
