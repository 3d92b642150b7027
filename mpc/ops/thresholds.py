"""Which rows reach public thresholds: a comparison of every value whose bits are only counted (design: thresholds).

x - c is known to lie in a k-bit window for every value x and threshold c; r uniform in k bits; the dealer's tables are
described in `Reached` and `Empty`. T values a row.

1. open u = (x + r) mod 2^k                                            one round, k bits; serves every threshold
2. for each threshold c, u_c = u - c; look up this party's xor share of [low bits of u_c < low bits of r], xor the share
   of alpha, open the bit e                                            one round, one bit per value and threshold
   [x >= c] = 1 xor e xor msb(u_c) xor (alpha xor msb(r)), and the bracket is shared additively mod 2^w
3. n <- sums of these along the row: how many values reach c, at most 2^w - 1. A row of 256 values or more is counted
   in segments, so that w = 8 is enough                                local
4. open v = n + s mod 2^w                                              one round, w bits per segment and threshold
5. look up this party's xor share of [v = s], which says n = 0, xor the share of alpha', open the bits d
                                                                       one round, one bit per segment and threshold
   [some n > 0] is entry d of a small table, which is shared additively
"""

from __future__ import annotations

from typing import Any

import numpy as np

from secformer.mpc.dealer.thresholds import Empty, Reached, segments_of
from secformer.mpc.guards import Check
from secformer.mpc.ops.guard import plain
from secformer.mpc.party import Party
from secformer.mpc.primitives import Levels
from secformer.mpc.ring import mask


def kinds_of(shape: tuple[int, ...], levels: Levels, chunk: int, check: Check | None) -> tuple[Reached, Empty]:
    """The two correlations, one after the other, of values (..., T)."""
    rows, columns = int(np.prod(shape[:-1], dtype=np.int64)), shape[-1]
    thresholds = len(levels.thresholds)
    segments, length = segments_of(columns, thresholds)
    bits = length.bit_length()  # 2^bits > length: no count but 0 looks like 0
    return (Reached(rows * columns, levels.window, bits, thresholds, chunk, plain(check)),
            Empty(rows, bits, levels.width, thresholds, segments, chunk))


def reached(party: Party, x: Any, levels: Levels, check: Check | None = None) -> list[Any]:
    """Shares mod 2^width of [some value of the row >= c], (..., 1) for each threshold. Four rounds."""
    kind, empty = kinds_of(x.shape, levels, party.chunk, check)
    counts = _counts(party, kind, x, levels)
    material = party.take(empty)
    (v,) = party.open("count", [(material.masked("mask", counts), empty.window)])                    # 4
    v, share = v.reshape(empty.places, empty.count), material.draw("alpha")
    for q, j, start, stop in empty.parts():                                                          # 5
        rows = material.draw(f"equal{q}.{j}").reshape(stop - start, empty.row_bytes)
        party.kernels.pick(rows, v[q, start:stop], q, share[start:stop])
    (d,) = party.open("outcome", [(share, empty.places)], xor=True)
    results = []
    for t in range(empty.thresholds):
        table = material.draw(f"table{t}").reshape(empty.count, empty.entries, 1)
        own = (d >> np.uint64(t * empty.segments)) & mask(empty.segments)
        results.append(party.kernels.gather(table, own).reshape(*x.shape[:-1], 1))
    return results


def _counts(party: Party, kind: Reached, x: Any, levels: Levels) -> Any:
    """Shares mod 2^width of how many values of a segment reach each threshold: (thresholds, segments * rows)."""
    kernels, material = party.kernels, party.take(kind)
    (u,) = party.open("compare", [(material.masked("mask", x), kind.window)])                        # 1
    party.see(material, u, kind.guards, x.shape)
    thresholds = [c % 2**64 for _, c in levels.thresholds]
    planes = kernels.backend.joined([material.draw(f"alpha{t}")[None] for t in range(kind.thresholds)])
    for j, start, stop in kind.parts():                                                              # 2
        rows = material.draw(f"equal{j}").reshape(stop - start, kind.row_bytes)
        kernels.below(rows, u[start:stop], thresholds, kind.window, start, planes)
    opened = party.open("outcome", [(plane, 64) for plane in planes], xor=True)
    columns, first = x.shape[-1], party.rank == 0
    _, length = segments_of(columns, kind.thresholds)
    return kernels.backend.joined([                                                                  # 3
        kernels.counted(material.draw(f"bit{t}"), e, u, c, kind.window, columns, length, first)[None]
        for t, (c, e) in enumerate(zip(thresholds, opened, strict=True))
    ])
