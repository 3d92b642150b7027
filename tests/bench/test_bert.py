"""The bench of a whole BERT, and the pictures and tables that are made of its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secformer.models.run.comparison import PARTS


@pytest.mark.slow
def test_bench_of_bert_and_of_networks(bench: Callable[[str], Any], tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    bert, network = bench("bert"), bench("network")
    arguments = ["--shape", "tiny", "--tokens", "8", "--recipe", "faithful,secformer", "--repeat", "1"]
    assert bert.main([*arguments, "--out", str(tmp_path)]) == 0
    facts = json.loads((tmp_path / "comparison-tiny-8.json").read_text("utf-8"))
    row = facts["rows"]["faithful"]
    assert set(row["by_part"]) == set(PARTS) and row["error_to_twin"] < bert.TOLERANCE
    assert row["peak_memory_bytes"] > 0 and facts["ratios"]["secformer"]["faithful"]["rounds"] > 1
    tables = bench("tables")
    capsys.readouterr()
    assert tables.main([str(tmp_path / "comparison-tiny-8.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("`faithful`" in line for line in lines) == 3 and all(line.startswith("|") for line in lines if line)
    assert facts["machine"]["packages"]["numpy"] and (tmp_path / "bert-tiny-8-secformer.json").is_file()
    pytest.importorskip("matplotlib")
    assert network.main([str(tmp_path / "comparison-tiny-8.json"), "--out", str(tmp_path)]) == 0
    assert 0 < (tmp_path / "network-tiny-8.png").stat().st_size < 100_000


def test_ratios_of_a_bench(bench: Callable[[str], Any]) -> None:
    bert = bench("bert")

    def row(scale: int) -> dict[str, Any]:
        predicted = {n: {"online": 1.0 * scale, "ahead": 2.0 * scale} for n in ("LAN", "WAN")}
        return {"predicted": predicted, "online_seconds": scale, "offline_seconds": scale, "rounds": scale,
                "online_bytes_both_directions": scale, "dealer_bytes": scale}

    found = bert.ratios({"puma": row(6), "secformer": row(2), "faithful": row(1)})
    assert set(found) == {"puma", "secformer"}
    assert set(found["puma"]["secformer"].values()) == {3.0} and set(found["secformer"]["faithful"].values()) == {2.0}
