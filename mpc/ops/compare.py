"""Comparison with public thresholds, and relu, in two rounds without boolean shares (design: masked table look-up).

x is known to lie in a k-bit window; r uniform in k bits; the dealer's tables are described in `Comparison`.

1. open u = (x + r) mod 2^k                                        one round, k bits; serves every threshold
2. for each threshold c, u_c = u - c; look up this party's xor shares of [u_b = r_b] and [u_b < r_b] in each block,
   xor the shares of alpha, open the outcome bits e                          one round, 2 blocks - 1 bits
3. [x < c] is entry e of the last table, flipped publicly where msb(u_c) is set
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from secformer.mpc.dealer.expand import Material
from secformer.mpc.dealer.kinds import Comparison, chunks
from secformer.mpc.party import Party


def less(party: Party, x: Any, thresholds: Sequence[int], window: int, width: int) -> list[Any]:
    """Shares mod 2^width of [x < c] for each threshold (words). Two rounds."""
    kind = Comparison(x.size, window, len(thresholds), width, chunk=party.chunk)
    material = party.take(kind)
    (u,) = party.open("compare", [(material.masked("mask", x), window)])                                # 1
    shifted = [(u - np.uint64(c % 2**64)) & np.uint64((1 << window) - 1) for c in thresholds]
    outcomes = _outcomes(party, kind, material, shifted)
    results = []
    for v, (below,) in zip(shifted, _entries(party, kind, material, outcomes), strict=True):            # 3
        high = (v >> np.uint64(window - 1)) == 1
        one = np.uint64(1 if party.rank == 0 else 0)
        results.append(party.kernels.xp.where(high, one - below, below).reshape(x.shape))
    return results


def relu(party: Party, x: Any, window: int, width: int) -> Any:
    """Shares mod 2^width of max(x, 0). Two rounds.

    With b = 1 - [x < 0] and the wrap w = [u < r], relu = b (u - r + w 2^k): the table holds b, and b's products with
    the terms that are not public.
    """
    kind = Comparison(x.size, window, 1, width, values=True, chunk=party.chunk)
    material = party.take(kind)
    r = material.draw("mask")
    (u,) = party.open("compare", [(x.reshape(-1) + r, window)])                                         # 1
    ((c, low, *high),) = _entries(party, kind, material, _outcomes(party, kind, material, [u]))
    one = np.uint64(1 if party.rank == 0 else 0)
    # msb(u) = 0: b = 1 - c, b (r - w 2^k) = low; msb(u) = 1: b = c, no wrap, b r = high, which mod 2^k is r - low
    upper = c * u - (high[0] if high else r - low)
    lower = (one - c) * u - low
    return party.kernels.xp.where((u >> np.uint64(window - 1)) == 1, upper, lower).reshape(x.shape)


def _outcomes(party: Party, kind: Comparison, material: Material, shifted: list[Any]) -> list[Any]:
    """Opens the masked outcome bits for each threshold: flat words below 2^outcome_bits."""
    xp = party.kernels.xp
    shares = [material.draw(f"alpha{t}") for t in range(kind.thresholds)]
    for j, (start, stop) in enumerate(chunks(kind.count, kind.chunk)):                                  # 2
        for b in range(len(kind.blocks)):
            rows = material.draw(f"equal{j}.{b}").reshape(stop - start, kind.row_bytes(b))
            last = b == len(kind.blocks) - 1
            for share, v in zip(shares, shifted, strict=True):
                party.kernels.outcome(rows, v[start:stop], kind.shifts()[b], kind.blocks[b], 2 * b, last,
                                      share[start:stop])
    bits = kind.outcome_bits
    (opened,) = party.open("outcome", [(xp.concatenate(shares), bits)], xor=True)
    return [opened[t * kind.count : (t + 1) * kind.count] for t in range(kind.thresholds)]


def _entries(party: Party, kind: Comparison, material: Material, outcomes: list[Any]) -> list[list[Any]]:
    """For each threshold the columns of this party's table share at the opened entry."""
    xp = party.kernels.xp
    found = [xp.empty((kind.columns, kind.count), dtype=np.uint64) for _ in outcomes]
    for j, (start, stop) in enumerate(chunks(kind.count, kind.chunk)):
        for t, e in enumerate(outcomes):
            rows = material.draw(f"table{j}.{t}").reshape(stop - start, 1 << kind.outcome_bits, kind.columns)
            found[t][:, start:stop] = party.kernels.gather(rows, e[start:stop])
    return [list(f) for f in found]
