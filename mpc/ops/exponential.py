"""exp of a shared value from one masked opening: a sum in the exponent is a product.

1. open u = (x + r) mod 2^p, in k = p + f bits                                          one round, k bits
2. u = 16 U + v with v in [0, 16): x = v + (16 U - r) modulo 2^p, where the bracket has only one value that fits the
   domain, so e^x = e^v T[U]: e^v is public, and the dealer shares the table T of e^(16 U - r) for all 2^p / 16 values
   of U
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from secformer.mpc.dealer.kinds import STEP, ExpMask, chunks
from secformer.mpc.errors import RangeError
from secformer.mpc.kernels.compose import STEP_BITS
from secformer.mpc.party import Party
from secformer.mpc.shares import Share

if TYPE_CHECKING:
    from secformer.mpc.session import Session

MASK_FRAC = 41      # fractional bits of the table: e^16 times its rounding is 2^-19
PUBLIC_FRAC = 18    # of the public factor
FRAC = MASK_FRAC + PUBLIC_FRAC
HIGHEST = 2.0       # of a domain's upper end
SLACK = 2.0**-4     # above it, so that rounding x does not lead out of the domain
LOW_SLACK = 2.0**-8  # the same below
MAGNITUDE = 3       # results stay below 2^3
LEAST_PERIOD_BITS = STEP_BITS + 1


@dataclass(frozen=True)
class Exponential:
    """e^x on the domain [high + 17/256 - 2^period_bits + 16, high]; anywhere else the result is arbitrary.

    Raises RangeError for a high end above 2 or below 0, or a period below 32.
    """

    period_bits: int
    high: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.high <= HIGHEST or self.period_bits < LEAST_PERIOD_BITS:
            raise RangeError(f"a masked exponential takes a domain that ends in [0, {HIGHEST:g}] and a period of 32 or "
                             f"more, got {self.high:g} and 2^{self.period_bits}; subtract the row maximum first")

    @property
    def low(self) -> float:
        return self.high + SLACK + LOW_SLACK - 2.0**self.period_bits + STEP

    def wrap(self, session: Session, data: Any) -> Share:
        """The share that an evaluation makes."""
        return Share(session, data, FRAC, session.fixed.window(FRAC, MAGNITUDE), MAGNITUDE)


def kind_of(count: int, bits: int, function: Exponential, chunk: int) -> ExpMask:
    top = int((function.high + SLACK) * 2.0 ** (bits - function.period_bits))
    return ExpMask(count, bits, function.period_bits, top, MASK_FRAC, chunk)


def exponential(party: Party, x: Any, function: Exponential, bits: int) -> Any:
    """Shares of e^x with FRAC fractional bits; x flat words, of which bits - period_bits are fractional. One round."""
    kind = kind_of(x.size, bits, function, party.chunk)
    material = party.take(kind)
    (u,) = party.open("exponential", [(material.masked("mask", x), bits)])                             # 1
    out = party.kernels.xp.empty(x.size, dtype=np.uint64)
    for j, (start, stop) in enumerate(chunks(x.size, kind.chunk)):                                     # 2
        table = material.draw(f"table{j}").reshape(kind.entries, stop - start)
        out[start:stop] = party.kernels.exponential(u[start:stop], bits, kind.period_bits, table, PUBLIC_FRAC)
    return out
