"""Comparison with public thresholds, and relu, without boolean gates (design: masked table look-up).

x is known to lie in a k-bit window; r uniform in k bits; the dealer's tables are described in `Less` and `Relu`.

1. open u = (x + r) mod 2^k                                        one round, k bits; serves every threshold
2. for each threshold c, u_c = u - c; look up this party's xor shares of [u_b = r_b] and [u_b < r_b] in each block,
   xor the shares of alpha, open the outcome bits e                          one round, 2 blocks - 1 bits
3. less: open entry e of the last table, a bit d under the mask beta             one round, one bit per threshold
   [x < c] = d xor msb(u_c) xor beta, and beta is shared additively
   relu: its share is entry e of the last table, flipped publicly where msb(u) is set
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from secformer.mpc.dealer.comparisons import Comparison, Less, Relu
from secformer.mpc.dealer.correlations import Material
from secformer.mpc.guards import Check
from secformer.mpc.ops.guard import plain
from secformer.mpc.party import Party
from secformer.mpc.ring import mask

OCTET = 8  # thresholds whose masked answers share a byte


def less(party: Party, x: Any, thresholds: Sequence[int], window: int, width: int,
         check: Check | None = None) -> list[Any]:
    """Shares mod 2^width of [x < c] for each threshold (words). Three rounds."""
    kind = Less(x.size, window, width, len(thresholds), party.chunk, plain(check))
    material = party.take(kind)
    (u,) = party.open("compare", [(material.masked("mask", x), window)])                                # 1
    party.see(material, u, kind.guards, x.shape)
    shifted = [(u - np.uint64(c % 2**64)) & mask(window) for c in thresholds]
    answers = _answers(party, kind, material, _outcomes(party, kind, material, shifted))
    results = []
    for t, (v, d) in enumerate(zip(shifted, answers, strict=True)):                                     # 3
        beta = material.draw(f"bit{t}")
        one = np.uint64(1 if party.rank == 0 else 0)
        flipped = (v >> np.uint64(window - 1)) != d
        results.append(party.kernels.xp.where(flipped, one - beta, beta).reshape(x.shape))
    return results


def relu(party: Party, x: Any, window: int, width: int, check: Check | None = None) -> Any:
    """Shares mod 2^width of max(x, 0). Two rounds.

    With b = 1 - [x < 0] and the wrap w = [u < r], relu = b (u - r + w 2^k): the table holds b, and b's products with
    the terms that are not public (see `Kernels.rectified`).
    """
    kind = Relu(x.size, window, width, chunk=party.chunk, guards=plain(check))
    material = party.take(kind)
    r = material.draw("mask")
    (u,) = party.open("compare", [(x.reshape(-1) + r, window)])                                         # 1
    party.see(material, u, kind.guards, x.shape)
    (outcomes,) = _outcomes(party, kind, material, [u])
    out = party.kernels.xp.empty(x.size, dtype=np.uint64)
    for j, start, stop in kind.parts():                                                                 # 3
        rows = material.draw(f"table{j}").reshape(stop - start, 1 << kind.outcome_bits, kind.columns)
        out[start:stop] = party.kernels.rectified(rows, outcomes[start:stop], u[start:stop], r[start:stop], window,
                                                  party.rank == 0)
    return out.reshape(x.shape)


def _outcomes(party: Party, kind: Comparison, material: Material, shifted: list[Any]) -> list[Any]:
    """Opens the masked outcome bits for each threshold: flat words below 2^outcome_bits."""
    shares = [material.draw(f"alpha{t}") for t in range(kind.thresholds)]
    blocks, shifts = kind.blocks, kind.shifts()
    for j, start, stop in kind.parts():                                                                 # 2
        for b in range(len(blocks)):
            rows = material.draw(f"equal{j}.{b}").reshape(stop - start, kind.row_bytes(b))
            last = b == len(blocks) - 1
            for share, v in zip(shares, shifted, strict=True):
                party.kernels.outcome(rows, v[start:stop], shifts[b], blocks[b], 2 * b, last,
                                      share[start:stop])
    return party.open("outcome", [(share, kind.outcome_bits) for share in shares], xor=True)


def _answers(party: Party, kind: Less, material: Material, outcomes: list[Any]) -> list[Any]:
    """Opens the bit of each threshold's table that the outcome names: flat words, 0 or 1."""
    xp = party.kernels.xp
    groups = [range(t, min(t + OCTET, kind.thresholds)) for t in range(0, kind.thresholds, OCTET)]
    shares = [xp.zeros(kind.count, dtype=np.uint64) for _ in groups]
    for j, start, stop in kind.parts():
        for t, e in enumerate(outcomes):
            rows = material.draw(f"table{j}.{t}").reshape(stop - start, kind.table_bytes)
            party.kernels.pick(rows, e[start:stop], t % OCTET, shares[t // OCTET][start:stop])
    opened = party.open("answer", [(s, len(g)) for s, g in zip(shares, groups, strict=True)], xor=True)
    return [(opened[t // OCTET] >> np.uint64(t % OCTET)) & np.uint64(1) for t in range(kind.thresholds)]
