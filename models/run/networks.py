"""Networks for which running times are predicted: the latency of a round, and a bandwidth."""

from __future__ import annotations

from dataclasses import dataclass

from secformer.mpc.meter import Cost


@dataclass(frozen=True)
class Network:
    """latency: seconds that a round waits for its messages; bandwidth: bits per second in each direction."""

    name: str
    latency: float
    bandwidth: float

    def __str__(self) -> str:
        rate = f"{self.bandwidth / 1e9:g} Gbit/s" if self.bandwidth >= 1e9 else f"{self.bandwidth / 1e6:g} Mbit/s"
        return f"{rate}, {self.latency * 1e3:g} ms"

    def waiting(self, cost: Cost) -> float:
        """Seconds that the online rounds wait for messages."""
        return cost.rounds * self.latency

    def moving(self, cost: Cost) -> float:
        """Seconds that the online bytes take, sent in both directions at once."""
        return cost.bytes / 2 * 8 / self.bandwidth

    def online(self, cost: Cost) -> float:
        """Predicted seconds from input to answer: measured compute, rounds, bytes."""
        return cost.predict(latency=self.latency, bandwidth=self.bandwidth)

    def ahead(self, cost: Cost) -> float:
        """Predicted seconds of the work that can be done before the input is there: expanding correlated randomness,
        and moving the dealer's corrections to party 1."""
        return cost.offline_seconds + cost.dealer_bytes * 8 / self.bandwidth


LAN = Network("LAN", 0.5e-3, 1e9)
WAN = Network("WAN", 40e-3, 1e8)
NETWORKS = (LAN, WAN)
