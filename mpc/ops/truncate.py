"""Exact truncation: z / 2^s within a window, error below one unit in the last place, never wrapping.

1. drop the lowest s bits of the shares, party 0 rounding down, party 1 up (Mohassel and Zhang 2017)        local
2. lift: with k the window that is left, r uniform in k bits, m = msb(r), open
   u = (z' + r + 2^(k-2)) mod 2^k                                                          one round, k bits
3. z'' = u - r + 2^k (1 - msb u) m - 2^(k-2)

Step 1 gives floor(z / 2^s) or the next integer, and exactly z / 2^s where that is one: modulo 2^(window - s) a wrap of
the sum of shares does not matter, and the shares' low bits add up to z's or, where they carry, the carry and the
rounding up cancel. Step 2 makes whole words of it: what is opened is z' alone, no bit of what was dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from secformer.mpc.dealer.kinds import Truncation
from secformer.mpc.party import Party

Job = tuple[Any, int, int]  # words, shift, window


def kinds(sizes: Sequence[int], shifts: Sequence[int], windows: Sequence[int]) -> list[Truncation]:
    """The correlations of a batch: lifts from what dropping leaves of the windows."""
    return [Truncation(n, 0, k - s) for n, s, k in zip(sizes, shifts, windows, strict=True)]


def drop(words: Any, bits: int, up: bool) -> Any:
    """A share without its lowest bits, rounded up or down."""
    if not bits:
        return words
    if not up:
        return words >> np.uint64(bits)
    return np.uint64(0) - ((np.uint64(0) - words) >> np.uint64(bits))


def truncate(party: Party, jobs: Sequence[Job]) -> list[Any]:
    """Shares of z >> s for each (z, s, k). One round for all; k - s bits an element."""
    first = party.rank == 0
    wanted = kinds([z.size for z, _, _ in jobs], [s for _, s, _ in jobs], [k for _, _, k in jobs])
    materials = [party.take(kind) for kind in wanted]
    masked = []
    for (z, s, _), kind, material in zip(jobs, wanted, materials, strict=True):
        offset = 1 << (kind.window - 2) if first else 0
        masked.append((material.masked("mask", drop(z, s, not first), offset), kind.window))           # 1
    opened = party.open("truncate", masked)                                                            # 2
    done = []
    for (z, _, _), kind, material, u in zip(jobs, wanted, materials, opened, strict=True):
        mask = material.draw("shifted")
        msb = material.draw("msb") if kind.msb_bits else party.kernels.xp.zeros_like(u)
        done.append(party.kernels.truncated(u, mask, msb, kind.shift, kind.window, first).reshape(z.shape))  # 3
    return done
