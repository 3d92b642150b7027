"""Fourier series of a shared value from one masked opening (SecFormer's masked sine, taken to its limit).

1. open u = (x + r) mod 2^(p+f), the period being 2^p                                  one round, p + f bits
2. cos(k w x) = cos(k w u) cos(k w r) + sin(k w u) sin(k w r), the sine likewise: the u-terms are public, the r-terms
   shared by the dealer, so any sum of harmonics is local

Error of a result with coefficients c: below 2^-mask_frac times the sum of |c|, from the dealer's rounding, and K
2^-public_frac for the rounded public part; both average out to about the root of that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secformer.mpc.dealer.kinds import SeriesMask, chunks
from secformer.mpc.functions import Opening, Series
from secformer.mpc.guards import Check
from secformer.mpc.kernels.words import Dropped
from secformer.mpc.ops.guard import plain
from secformer.mpc.party import Opens, Party
from secformer.mpc.ring import mask
from secformer.mpc.shares import Share


def kind_of(count: int, opening: Opening, functions: Sequence[Series], width: int, chunk: int,
            check: Check | None) -> SeriesMask:
    """The correlation of an opening of `count` elements for these functions."""
    return SeriesMask(count, opening.bits, max(f.harmonics for f in functions), width, functions[0].mask_frac, chunk,
                      opening.spare, plain(check))


def series(party: Party, x: Share, functions: Sequence[Series], opening: Opening, width: int,
           check: Check | None = None) -> Opens:
    """Shares of f(x), with its `frac` fractional bits, mod 2^width. One round."""
    kind = kind_of(x.size, opening, functions, width, party.chunk, check)
    material = party.take(kind)
    words = Dropped(x.data, x.frac - opening.keep)  # exact mod the period, up to one unit
    (u,) = yield "series", [(material.masked("mask", words), opening.bits)]                            # 1
    party.see(material, u, kind.guards, x.shape)
    bits = opening.bits - opening.spare
    u = u & mask(bits) if opening.spare else u
    cos, sin = (np.zeros((len(functions), kind.harmonics)) for _ in range(2))
    for i, f in enumerate(functions):
        cos[i, : f.harmonics], sin[i, : f.harmonics] = f.waves
    parts = [party.kernels.xp.empty((len(functions), 0), dtype=np.uint64)]
    for j, (start, stop) in enumerate(chunks(x.size, kind.chunk)):                                     # 2
        harmonics = material.draw(f"words{j}").reshape(2 * kind.harmonics, stop - start)
        parts.append(party.kernels.series(u[start:stop], bits, cos, sin, harmonics, functions[0].public_frac))
    out = parts[-1] if len(parts) <= 2 else party.kernels.backend.joined(parts[1:], axis=1)
    results = []
    for f, total in zip(functions, out, strict=True):
        if party.rank == 0:
            total = total + np.uint64(round(f.cos[0] * 2.0**f.frac) % 2**64)
        if f.linear:
            total = total + x.data.reshape(-1) * np.uint64(f.linear_factor(x.frac) % 2**64)
        results.append(total.reshape(x.shape))
    return results
