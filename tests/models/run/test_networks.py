"""Predicted times."""

from __future__ import annotations

import pytest

from secformer.models.run.networks import LAN, WAN, Network
from secformer.mpc.meter import Cost


def test_networks() -> None:
    cost = Cost("run", seconds=1.0, offline_seconds=0.25, bytes=2_000_000, rounds=10, dealer_bytes=1_000_000)
    network = Network("test", 0.01, 1e6)
    assert network.online(cost) == pytest.approx(1.0 + 0.1 + 8.0)
    assert network.waiting(cost) + network.moving(cost) == pytest.approx(8.1)
    assert network.ahead(cost) == pytest.approx(8.25)
    assert (str(LAN), str(WAN)) == ("1 Gbit/s, 0.5 ms", "100 Mbit/s, 40 ms")
