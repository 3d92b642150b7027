"""Views as text, without a terminal."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType


def printed(view: RenderableType) -> str:
    """What a view prints, on lines wide enough for whole sentences."""
    text = io.StringIO()
    Console(file=text, width=400).print(view)
    return text.getvalue()


def rows(view: RenderableType) -> list[list[str]]:
    """The cells of a table's printed rows."""
    return [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]
            for line in printed(view).splitlines() if line.startswith(("│", "┃"))]
