"""Predicted times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.models.run.networks import LAN, NETWORKS, WAN, Network
from secformer.mpc.meter import Cost


def test_networks() -> None:
    cost = Cost("run", seconds=1.0, offline_seconds=0.25, bytes=2_000_000, rounds=10, dealer_bytes=1_000_000)
    network = Network("test", 0.01, 1e6)
    assert network.online(cost) == pytest.approx(1.0 + 0.1 + 8.0)
    assert network.waiting(cost) + network.moving(cost) == pytest.approx(8.1)
    assert network.ahead(cost) == pytest.approx(8.25)
    assert (str(LAN), str(WAN)) == ("1 Gbit/s, 0.5 ms", "100 Mbit/s, 40 ms")


counts = st.integers(0, 10**9)


@given(counts, st.integers(0, 10**4), st.floats(0.0, 1e3), st.sampled_from(NETWORKS))
def test_online_is_computing_waiting_and_moving(size: int, rounds: int, seconds: float, network: Network) -> None:
    cost = Cost("run", seconds=seconds, bytes=size, rounds=rounds, offline_seconds=7.0, dealer_bytes=10**9)
    expected = seconds + network.waiting(cost) + network.moving(cost)
    assert network.online(cost) == pytest.approx(expected)


@pytest.mark.parametrize(("bandwidth", "latency", "says"), [
    (1e9, 1e-3, "1 Gbit/s, 1 ms"), (2.5e9, 0.02, "2.5 Gbit/s, 20 ms"), (9.99e8, 0.0, "999 Mbit/s, 0 ms"),
    (5e5, 0.1, "0.5 Mbit/s, 100 ms"),
])
def test_networks_say_what_they_are(bandwidth: float, latency: float, says: str) -> None:
    assert str(Network("any", latency, bandwidth)) == says
