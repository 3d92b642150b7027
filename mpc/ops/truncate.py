"""Exact truncation: z / 2^s within a window, error below one unit in the last place, never wrapping.

Design after the probabilistic truncation of edaBits-style protocols; the stochastic rounding bit depends on the
opened word (see docs/security.md). For |z| < 2^(k-2), r uniform in k bits, R = r >> s, m = msb(r):

1. open u = (z + r + 2^(k-2)) mod 2^k                                       one round, k bits
2. z' = (u >> s) - R + 2^(k-s) (1 - msb u) m - 2^(k-2-s)

With s = 0 this lifts z from a k-bit window to whole words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secformer.mpc.dealer.kinds import Truncation
from secformer.mpc.party import Party

Job = tuple[Any, int, int]  # words, shift, window


def kinds(sizes: Sequence[int], shifts: Sequence[int], windows: Sequence[int]) -> list[Truncation]:
    return [Truncation(n, s, k) for n, s, k in zip(sizes, shifts, windows, strict=True)]


def truncate(party: Party, jobs: Sequence[Job]) -> list[Any]:
    """Shares of z >> s for each (z, s, k). One round for all; k bits an element."""
    wanted = kinds([z.size for z, _, _ in jobs], [s for _, s, _ in jobs], [k for _, _, k in jobs])
    materials = [party.take(kind) for kind in wanted]
    masked = []
    for (z, _, k), material in zip(jobs, materials, strict=True):
        masked.append((material.masked("mask", z, 1 << (k - 2) if party.rank == 0 else 0), k))
    opened = party.open("truncate", masked)                                                            # 1
    done = []
    for (z, s, k), kind, material, u in zip(jobs, wanted, materials, opened, strict=True):
        shifted = material.draw("shifted")
        msb = material.draw("msb") if kind.msb_bits else party.kernels.xp.zeros_like(u)
        done.append(party.kernels.truncated(u, shifted, msb, s, k, party.rank == 0).reshape(z.shape))  # 2
    return done
