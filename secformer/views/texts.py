"""Texts and pairs of texts, as tables and JSON hold them."""

from __future__ import annotations

from collections.abc import Sequence

Texts = list[str] | list[tuple[str, str]]


def one_line(text: Sequence[str]) -> str:
    """A text as it is; a pair with a bar between its two texts."""
    return text if isinstance(text, str) else " | ".join(text)


def texts_json(texts: Texts) -> list[str | list[str]]:
    """Texts as strings, pairs as lists."""
    return [text if isinstance(text, str) else list(text) for text in texts]
