"""Texts and pairs of texts, as tables and JSON hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

Texts = list[str] | list[tuple[str, str]]


@dataclass(frozen=True)
class Refused:
    """A text that was left out: its number among those given, from 0, and a line that says why."""

    number: int
    problem: str


def one_line(text: Sequence[str]) -> str:
    """A text as it is; a pair with a bar between its two texts."""
    return text if isinstance(text, str) else " | ".join(text)


def texts_json(texts: Texts) -> list[str | list[str]]:
    """Texts as strings, pairs as lists."""
    return [text if isinstance(text, str) else list(text) for text in texts]


def refused_lines(refused: Sequence[Refused]) -> list[RenderableType]:
    """A line per text that was left out."""
    from rich.text import Text

    return [Text(each.problem) for each in refused]


def refused_json(refused: Sequence[Refused]) -> list[dict[str, Any]]:
    return [{"number": each.number, "problem": each.problem} for each in refused]
