"""The bench that counts device operations: what it counts is what a program asks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def test_ghosts_count_what_a_device_would_do(bench: Callable[[str], Any]) -> None:
    lab = bench("ghost_arrays")
    tally = lab.Tally()
    xp = lab.ghosts(tally)
    x = xp.asarray(np.arange(6, dtype=np.uint32))
    y = (x.astype(np.uint64) + np.uint64(3)).reshape(2, 3)
    assert (y.dtype, y.shape) == (np.uint64, (2, 3))
    assert y[1:].T.reshape(-1).shape == (3,) and y.astype(np.uint64, copy=False) is y
    assert xp.ascontiguousarray(y.T).flags.c_contiguous and xp.ascontiguousarray(y) is y
    assert y.sum(axis=1, dtype=np.uint64).shape == (2,)
    assert y.sum(axis=0, keepdims=True, dtype=np.uint64).shape == (1, 3)
    assert xp.concatenate([y, y], axis=1).shape == (2, 6) and xp.stack([x, x, x]).shape == (3, 6)
    y[0] = x[:3]
    y += np.uint64(1)
    counted = {name: n for (kind, name), n in tally.by(1, 2).items() if kind == lab.ARRAY}
    assert counted == {"astype": 1, "add": 2, "copy (contiguous)": 1, "add.reduce": 2, "concatenate": 5,
                       "copy (assign)": 1}
    assert tally.by(1)[lab.HOST,] == 1
    here = "tests/bench/test_launches.py: test_ghosts_count_what_a_device_would_do"
    assert set(tally.by(3)) == {(here,)}


def test_operations_of_an_inference_are_recorded(bench: Callable[[str], Any], tmp_path: Path) -> None:
    launches = bench("launches")
    assert launches.main(["--shape", "tiny", "--tokens", "8", "--out", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "launches.json").read_text("utf-8"))["rows"]
    for key in ("by_role", "by_kind", "by_name", "by_caller"):
        assert sum(row[key].values()) == row["operations"]
    assert set(row["by_role"]) == {"party 0", "party 1", "dealer"}
