"""The benches of cells: the simulation follows its laws, and an output that is not whole is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secformer import demo_model, secure_model

pytest.importorskip("simpy", reason="the simulation needs simpy")
pytest.importorskip("pyarrow", reason="batch jobs need the extra `batch`")
FAST = 1e12  # bits per second


def test_a_cell_gives_its_rows_in_its_service_time(bench: Callable[[str], Any]) -> None:
    model = bench("cells_model")
    one = model.Measured([0.5], 32.0, 0.0, 0.0, 3)
    assert model.rate(one, 1, FAST) == pytest.approx(64.0)
    assert model.rate(one, 7, FAST) == pytest.approx(7 * 64.0)
    assert model.rate(model.Measured([0.4, 0.6], 32.0, 0.0, 0.0, 3), 1, FAST) == pytest.approx(64.0)


@pytest.mark.parametrize(("driver", "carried", "network", "most"), [
    (0.05, 0.0, FAST, 32 / 0.05), (0.0, 1e6, 1e9, 32 * 1e9 / 8e6), (0.05, 1e6, 1e9, 32 / 0.05),
])
def test_what_cells_share_bounds_them(bench: Callable[[str], Any], driver: float, carried: float, network: float,
                                      most: float) -> None:
    model = bench("cells_model")
    shared = model.Measured([0.5], 32.0, driver, carried, 3)
    assert model.rate(shared, 256, network) == pytest.approx(most, rel=0.02)
    assert model.rate(shared, 2, network) == pytest.approx(2 * 64.0, rel=0.02)


def test_a_queue_hides_the_driver(bench: Callable[[str], Any]) -> None:
    model = bench("cells_model")
    alone, queued = (model.rate(model.Measured([0.5], 32.0, 0.1, 0.0, queue), 1, FAST) for queue in (1, 3))
    assert alone == pytest.approx(32 / 0.6, rel=0.02) and queued == pytest.approx(64.0, rel=0.02)


def test_only_a_whole_and_right_output_counts(bench: Callable[[str], Any], tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files, texts = bench("cells_files"), ["A wonderful film.", "A dull, lifeless mess."]
    out = secure_model(demo_model(), texts)
    right = {"id": ["row-0", "row-1"], "label": list(out.labels or []), "scores": out.probabilities.tolist(),
             "trusted": [True, True], "error": pa.nulls(2, pa.string())}
    for changed in ({}, {"id": ["row-0", "row-0"]}, {"label": right["label"][::-1]}, {"trusted": [True, None]},
                    {"scores": right["scores"][::-1]}, {"error": ["so and so", None]}):
        pq.write_table(pa.table(right | changed), path := tmp_path / "out.parquet")
        if not changed:
            assert files.verified(path, texts) < 0.01
            continue
        with pytest.raises(SystemExit, match="nothing is recorded"):
            files.verified(path, texts)
