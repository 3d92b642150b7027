"""What `secformer batch` shows: how far a job is, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from secformer.batch.driver import Progress
    from secformer.batch.job import Summary


def progress(now: Progress) -> str:
    """One line: rows, rate and time left."""
    left = now.seconds_left
    return (f"{now.rows:,} rows, {now.rate:,.1f} rows/s, "
            + ("time left unknown" if left is None else f"{_time(left)} left"))


def waiting(now: Progress) -> str:
    """One line: what a job waits for, or that it goes on."""
    return f"no cell serves now; waiting ({now.waiting})" if now.waiting else "a cell serves again"


def summary(found: Summary, output: str) -> RenderableType:
    """The table at the end."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rate = found.answered / found.seconds if found.seconds else 0.0
    for name, value in (("rows", f"{found.rows:,}"), ("rows with an error", f"{found.failed:,}"),
                        ("rows that cannot be trusted", f"{found.marked:,}"),
                        ("rows answered in this run", f"{found.answered:,}"), ("seconds", f"{found.seconds:,.1f}"),
                        ("rows per second", f"{rate:,.1f}"), ("MB between the parties", f"{found.bytes / 1e6:,.1f}")):
        table.add_row(name, value)
    written = Text(f"written: {output}")
    if not found.cells:
        return Group(written, table)
    cells = Table()
    for name in ("cell", "rows", "failures"):
        cells.add_column(name, justify="left" if name == "cell" else "right")
    for cell in found.cells:
        cells.add_row(cell.name, f"{cell.rows:,}", f"{cell.failures:,}")
    return Group(written, table, cells)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
