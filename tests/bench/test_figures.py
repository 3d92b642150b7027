"""The bench of single functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_bench_of_figures(bench: Callable[[str], Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figures = bench("figures")
    only = "gelu,division"
    assert figures.main(["--only", only, "--largest", "300", "--repeat", "1", "--out", str(tmp_path)]) == 0
    assert bench("tables").main([str(tmp_path / "figures-gelu-division.json")]) == 0
    facts = json.loads((tmp_path / "figures-gelu-division.json").read_text("utf-8"))["functions"]
    assert facts["gelu"]["contenders"]["faithful"]["error"]["secure_max"] < 2e-4
    assert all(0 < (tmp_path / f"{name}.png").stat().st_size < 100_000 for name in only.split(","))
