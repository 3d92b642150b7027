"""What `secformer batch` shows."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from secformer.batch.driver import Progress
from secformer.batch.job import CellSummary, Summary
from secformer.views.batch import progress, summary, waiting


@pytest.mark.parametrize(("now", "told"), [
    (Progress(0, 0, 0.0, 0.0, 0.0, ""), "0 rows, 0.0 rows/s, time left unknown"),
    (Progress(3000, 1000, 0.75, 0.5, 10.0, ""), "3,000 rows, 100.0 rows/s, 0:00:10 left"),
    (Progress(1, 1, 0.001, 0.0, 10.0, ""), "1 rows, 0.1 rows/s, 2:46:30 left"),
])
def test_progress(now: Progress, told: str) -> None:
    assert progress(now) == told


def test_waiting() -> None:
    assert waiting(Progress(0, 0, 0.0, 0.0, 1.0, "a: drained")) == "no cell serves now; waiting (a: drained)"


@pytest.mark.parametrize("cells", [(), (CellSummary("berlin", 900, 2), CellSummary("rome", 100, 0))])
def test_summary(cells: tuple[CellSummary, ...]) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(summary(Summary(2000, 3, 4, 1000, 20.0, 5_000_000, cells), "out.csv"))
    text = console.export_text()
    for part in ("written: out.csv", "2,000", "rows with an error", "3", "4", "1,000", "20.0", "50.0", "5.0"):
        assert part in text
    assert ("berlin" in text and "900" in text) == bool(cells)
