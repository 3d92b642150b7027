"""The papers behind the protocols, for `papers`, and what each function takes from them."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from secformer.protocols.papers import PAPERS, Cited, citations


def papers() -> RenderableType:
    table = Table()
    table.add_column("paper", overflow="fold", ratio=3)
    table.add_column("function: what it takes from the paper", overflow="fold", ratio=2)
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
