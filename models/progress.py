"""Progress as (what, done, total) calls, and a bar on stderr for those who just say True."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""


@contextmanager
def shown(progress: bool | Progress) -> Iterator[Progress]:
    """The callback to report to: the caller's own, a bar on stderr, or nobody."""
    if callable(progress):
        yield progress
        return
    if not progress:
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description:<24}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%")
    with Bar(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
