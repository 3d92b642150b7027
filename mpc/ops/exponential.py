"""exp of a shared value from one masked opening: a sum in the exponent is a product.

1. open u = (x + r) mod 2^p, in k = p + f bits                                          one round, k bits
2. u = 16 U + v with v in [0, 16): x = v + (16 U - r) modulo 2^p, where the bracket has only one value that fits the
   domain, so e^x = e^v T[U]: e^v is public, and the dealer shares the table T of e^(16 U - r) for all 2^p / 16 values
   of U
"""

from __future__ import annotations

from typing import Any

import numpy as np

from secformer.mpc.dealer.kinds import ExpMask, chunks
from secformer.mpc.functions import MASK_FRAC, PUBLIC_FRAC, SLACK, Exponential, Opening
from secformer.mpc.guards import Check
from secformer.mpc.kernels.words import Dropped
from secformer.mpc.ops.guard import plain
from secformer.mpc.party import Party
from secformer.mpc.ring import mask
from secformer.mpc.shares import Share


def kind_of(count: int, opening: Opening, function: Exponential, chunk: int, check: Check | None) -> ExpMask:
    """The correlation of an opening of `count` elements."""
    top = int((function.high + SLACK) * 2.0**opening.keep)
    return ExpMask(count, opening.bits, function.period_bits, top, MASK_FRAC, chunk, opening.spare, plain(check))


def exponential(party: Party, x: Share, function: Exponential, opening: Opening, check: Check | None = None) -> Any:
    """Shares of e^x with the fractional bits that the function states. One round."""
    kind = kind_of(x.size, opening, function, party.chunk, check)
    material = party.take(kind)
    words = Dropped(x.data, x.frac - opening.keep)  # exact mod the period, up to one unit
    (u,) = party.open("exponential", [(material.masked("mask", words), opening.bits)])                 # 1
    party.see(material, u, kind.guards, x.shape)
    bits = opening.bits - opening.spare
    u = u & mask(bits) if opening.spare else u
    out = party.kernels.xp.empty(x.size, dtype=np.uint64)
    for j, (start, stop) in enumerate(chunks(x.size, kind.chunk)):                                     # 2
        table = material.draw(f"table{j}").reshape(kind.entries, stop - start)
        party.kernels.exponential(u[start:stop], bits, kind.period_bits, table, PUBLIC_FRAC, out[start:stop])
    return out.reshape(x.shape)
