"""Plans: the ordered correlations that a program will ask for, known from shapes alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from secformer.mpc.dealer.kinds import Kind


@dataclass(frozen=True)
class Plan:
    """What the dealer works from. Both parties and the dealer must hold the same one: compare `digest`.

    rounds and bytes are the price of running it: message exchanges, and what both parties together send in them.
    """

    kinds: tuple[Kind, ...]
    rounds: int = 0
    bytes: int = 0
    digest: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        text = "\n".join(map(repr, (*self.kinds, self.rounds, self.bytes)))
        object.__setattr__(self, "digest", hashlib.sha256(text.encode()).hexdigest())

    @property
    def dealer_bytes(self) -> int:
        return sum(kind.corrections for kind in self.kinds)
