"""The bench of thin products: it refuses what is wrong, and compares the fastest turns."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def test_measures_and_records(bench: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thin = bench("thin")
    small = {"SHAPES": ((5, 7),), "PROGRAMS": ((8, 16), (3, 5)), "READ": 64, "LAYERS": 2, "MANY": 3}
    for name, value in small.items():
        monkeypatch.setattr(thin, name, value)
    monkeypatch.setattr(sys, "argv", ["thin.py", "--repeat", "1", "--turns", "2", "--out", str(tmp_path)])
    assert thin.main() == 0
    now = json.loads((tmp_path / "thin.json").read_text("utf-8"))["now"]
    assert len(now["products"]) == 3 * 2 * 3
    assert [row["shape"] for row in now["products"][:3]] == [[1, 5, 7], [8, 5, 7], [3, 5, 7]]
    assert [row["rounds"] for row in now["programs"]] == [11, 11]


def test_refuses_a_wrong_product(bench: Callable[[str], Any]) -> None:
    thin, a, b = bench("thin"), np.full((2, 3), 2**63 + 5, np.uint64), np.full((3, 4), 3, np.uint64)
    thin._verify(a @ b, a, b, 64)
    thin._verify(a @ b + np.uint64(2**48), a, b, 48)
    with pytest.raises(SystemExit, match="a product is wrong"):
        thin._verify(a @ b + np.uint64(1), a, b, 48)


def test_compares_the_fastest_turns(bench: Callable[[str], Any]) -> None:
    thin = bench("thin")

    def turn(seconds: float, speed: float) -> dict[str, Any]:
        row = {"shape": [1, 2, 3], "order": "rows", "bits": 64, "milliseconds": 1e3 * seconds}
        return {"programs": [{"rounds": 4, "seconds": seconds}], "products": [row],
                "reading_gigabytes_per_second": {"one_thread": speed}}

    slow, fast = thin.best([turn(2.0, 1.0), turn(3.0, 5.0)]), thin.best([turn(0.7, 1.0), turn(0.5, 2.0)])
    assert slow["programs"] == [{"rounds": 4, "seconds": 2.0}] and slow["reading_gigabytes_per_second"][
        "one_thread"] == 5.0
    found = thin.ratios(slow, fast)
    assert found["programs"] == [{"seconds": 4.0}]
    assert found["products"] == [{"shape": [1, 2, 3], "order": "rows", "bits": 64, "ratio": 4.0}]
