"""Plans: the ordered correlations that a program will ask for, known from shapes alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from secformer.mpc.dealer.kinds import CHUNK, MASK_FRAC, Kind

FORMAT = "secformer plan 1"  # raise it when a kind's fields or their order change


@dataclass(frozen=True)
class Plan:
    """What the dealer works from. Both parties and the dealer must hold the same one: compare `digest`.

    rounds and bytes are the price of running it: message exchanges, and what both parties together send in them.
    constants is a digest of the program's public numbers (factors, thresholds, coefficients): programs that differ in
    these alone have the same correlations and different plans.
    """

    kinds: tuple[Kind, ...]
    rounds: int = 0
    bytes: int = 0
    constants: str = ""
    digest: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        text = "\n".join(map(repr, (FORMAT, CHUNK, MASK_FRAC, *self.kinds, self.rounds, self.bytes, self.constants)))
        object.__setattr__(self, "digest", hashlib.sha256(text.encode()).hexdigest())

    @property
    def dealer_bytes(self) -> int:
        return sum(kind.corrections for kind in self.kinds)
