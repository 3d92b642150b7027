"""The bench of MACs: its rules on correlations counted by hand, what shares lose before openings, its turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from secformer.mpc.dealer.comparisons import Less
from secformer.mpc.dealer.kinds import ExpMask, Kind, Lift, SeriesMask
from secformer.mpc.dealer.products import Hadamard, MatMul
from secformer.mpc.functions import Series
from secformer.mpc.sessions.recorder import ghost

# Bytes of the dealer with MACs: a MAC of b bits has b / 8 + 8 bytes.
KINDS: list[tuple[Kind, int]] = [
    (SeriesMask(10, 24, 3, 40), 10 * 11 + 60 * (5 + 13)),
    (ExpMask(10, 24, 5, 0, 41), 10 * 11 + 20 * (8 + 16)),
    (Lift(10, 24, 48), 10 * 11 + 10 * (6 + 14) + 10 * (3 + 11)),                         # mask; rest; top bit
    (Lift(10, 48, 48), 10 * 14 + 10 * (6 + 14)),
    (MatMul(((2, 3), (3, 5)), (40, 40), ((0, 1, 40),), (None, 0)), 6 * 13 + 10 * (5 + 13)),
    (MatMul(((2, 3), (3, 5)), (40, 40), ((0, 1, 40),), (None, None)), (6 + 15) * 13 + 10 * (5 + 13)),
    (Hadamard(((7,), (7,)), (64, 64), ((0, 1, 64),), (None, None)), 14 * 16 + 7 * (8 + 16)),
    (Hadamard(((7,),), (64,), ((0, 0, 64),), (None,), (), (24,)),                        # a square, lifted
     7 * (11 + (8 + 16) + (5 + 13)) + 7 * ((8 + 16) + (5 + 13))),
]


@pytest.mark.parametrize(("kind", "expected"), KINDS, ids=[f"{type(k).__name__}-{i}" for i, (k, _) in enumerate(KINDS)])
def test_bytes_by_hand(bench: Callable[[str], Any], kind: Kind, expected: int) -> None:
    assert bench("authenticated").dealt(kind) == expected


def test_refuses_tables_that_no_rule_is_for(bench: Callable[[str], Any]) -> None:
    with pytest.raises(SystemExit, match="no rule"):
        bench("authenticated").dealt(Less(4, 24, 64))


def test_what_is_dropped_before_openings(bench: Callable[[str], Any]) -> None:
    module = bench("authenticated")
    recorder = module.DropRecorder()

    def program(s: Any, x: Any, y: Any) -> None:
        x, y = s.accept(x), s.accept(y)
        z = s.mul(x, y, magnitude=8)             # 32 fractional bits; nothing is dropped
        s.mul(z, x, magnitude=8)                 # drops 16 of z
        s.settle(z)                              # drops 16
        s.series(z, [Series(4, (0.0, 1.0), (0.0, 0.0))])

    plan = recorder.record(program, ghost((5,)), ghost((5,)))
    drops = {drop.kind: drop for drop in recorder.drops}
    assert [drop.kind for drop in recorder.drops] == ["Hadamard", "Lift", "SeriesMask"]
    assert all(drop.count == 5 for drop in recorder.drops)
    assert drops["Hadamard"].shift == drops["Lift"].shift == 16 and drops["SeriesMask"].shift > 0
    rows = module.counted(plan.kinds, recorder.drops)
    assert rows["Lift"]["online_macs"] - rows["Lift"]["online"] == 2 * 5 * 2
    assert sum(row["dealer"] for row in rows.values()) == plan.dealer_bytes
    assert sum(row["online"] for row in rows.values()) == plan.bytes
    assert all(row["dealer_macs"] > 2 * row["dealer"] for row in rows.values())


def test_measures_products_that_are_right(bench: Callable[[str], Any]) -> None:
    (row,) = bench("authenticated").measured((33,), 1).values()
    assert all(value > 0 for value in row.values()) and {"product", "check", "bare", "engine"} <= set(row)


def test_refuses_a_wrong_product(bench: Callable[[str], Any]) -> None:
    with pytest.raises(SystemExit, match="wrong"):
        bench("authenticated").require(np.zeros(1, np.uint64), np.ones(1, np.uint64))
