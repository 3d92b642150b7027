"""What a party's engine reports: readiness, costs, and material. `party_server` counts and shows it."""

from __future__ import annotations

from typing import Protocol

from secformer.mpc.meter import Cost
from secformer.roles import filling


class Reports(filling.Reports, Protocol):
    """Receives what the engine reports: readiness, the epoch, costs, where material comes from, and what the store
    holds."""

    def ready(self) -> None: ...
    def opened(self, model: str, epoch: str) -> None: ...
    def not_ready(self, reason: str, told: str) -> None: ...  # `told` is for clients
    def answered(self, cost: Cost) -> None: ...
    def took(self, space: str) -> None: ...
    def material(self, left: dict[str, int]) -> None: ...
    def refused(self, port: str, why: str) -> None: ...
