"""The table of a cost tree: one row per kind of part, and the sum."""

from __future__ import annotations

import numpy as np
from views_lab import printed, rows

from secformer.models.run.networks import LAN, WAN
from secformer.models.run.output import SecureOutput
from secformer.mpc.meter import Cost
from secformer.views.costs import cost_json, cost_table, ending, predicted


def tree() -> Cost:
    layers = {f"layer.{i}": Cost(f"layer.{i}", 1.0, 0.5, 3_000_000, 0, 6, 0, 2_000_000, {
        "gelu": Cost("gelu", 0.25, 0.0, 1_000_000, 0, 2, 0, 0),
        "softmax": Cost("softmax", 0.75, 0.5, 2_000_000, 0, 4, 0, 2_000_000)}) for i in range(2)}
    return Cost("total", 2.0, 1.0, 6_000_000, 5_000_000, 12, 1, 4_000_000, layers)


def test_kinds_are_added_up_and_sorted_by_traffic() -> None:
    head, softmax, gelu, whole, sharing = rows(cost_table(tree()))
    assert head == ["part", "seconds", "offline s", "MB sent", "rounds", "dealer MB"]
    assert softmax == ["softmax", "1.50", "1.00", "4.00", "8", "4.00"]
    assert gelu == ["gelu", "0.50", "0.00", "2.00", "4", "0.00"]
    assert whole == ["online, all", "2.00", "1.00", "6.00", "12", "4.00"]
    assert sharing == ["sharing the weights", "", "", "5.00", "1", ""]


def test_without_provisioning_there_is_no_row_for_it() -> None:
    cost = tree()
    cost.offline_bytes = cost.offline_rounds = 0
    assert rows(cost_table(cost))[-1][0] == "online, all"


def test_json_has_the_online_figures() -> None:
    assert cost_json(tree()) == {"seconds": 2.0, "offline_seconds": 1.0, "bytes": 6_000_000, "rounds": 12,
                                 "dealer_bytes": 4_000_000}


def test_times_are_predicted_for_each_network() -> None:
    said = predicted(tree())
    assert f"{LAN.online(tree()):.1f} s at {LAN}" in said and f"{WAN.online(tree()):.1f} s at {WAN}" in said


def test_an_answer_without_cost_ends_with_its_notes() -> None:
    out = SecureOutput(np.ones((1, 1)), notes=["measured at load"])
    assert [printed(part).strip() for part in ending(out)] == ["note: measured at load"]
