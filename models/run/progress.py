"""Progress: calls of (what, done, total), and a bar on stderr for callers who pass True."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from secformer.models.families.blocks import Sites
from secformer.protocols.ranges import Site

Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Reports to nobody."""


def part(tell: Progress, number: int, parts: int) -> Progress:
    """Reports the progress of one part of several as progress of the whole."""
    if tell is silent:
        return silent
    return lambda what, done, total: tell(what, number * total + done, parts * total)


def sites_told(at: Sites, tell: Progress, total: int) -> Sites:
    """The ranges of `at`. Reports a site when its ranges are first asked for: by its protocol, or by the linear layer
    before it."""
    if tell is silent:
        return at
    seen: set[str] = set()

    def told(site: str) -> Site:
        if site not in seen:
            tell(site, min(len(seen), total), total)
            seen.add(site)
        return at(site)

    return told


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
