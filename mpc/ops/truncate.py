"""Exact truncation: z / 2^s within a window, error below one unit in the last place, never wrapping.

1. drop the lowest s bits of the shares, party 0 rounding down, party 1 up (Mohassel and Zhang 2017)        local
2. lift: with k the window that is left, r_i < 2^k uniform at party i, r their sum as an integer, open
   u = (z' + r + 2^(k-2)) mod 2^k                                                          one round, k bits
3. z'' = u - r + 2^k (c + (1 - msb u) m) - 2^(k-2), with the carry c = r >> k and m = bit k - 1 of r; the dealer shares
   what stands in brackets for either msb u, mod 2^(width - k)

Step 1 gives floor(z / 2^s) or the next integer, and exactly z / 2^s where that is one: modulo 2^(window - s) a wrap of
the sum of shares does not matter, and the shares' low bits add up to z's or, where they carry, the carry and the
rounding up cancel. Step 2 makes words of `width` bits of it: what is opened is z' alone, no bit of what was dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secformer.mpc.dealer.kinds import Lift
from secformer.mpc.kernels.words import Dropped
from secformer.mpc.ops.guard import plain
from secformer.mpc.party import Party
from secformer.mpc.scales import Truncation


def kind_of(job: Truncation) -> Lift:
    """The correlation of a truncation: a lift of what dropping leaves of the window."""
    return Lift(job.x.size, job.window - job.shift, job.width, plain(job.check))


def drop(words: Any, bits: int, up: bool) -> Any:
    """A share without its lowest bits, rounded up or down, where it is masked."""
    return Dropped(words, bits, up) if bits else words


def truncate(party: Party, jobs: Sequence[Truncation]) -> list[Any]:
    """Shares mod 2^width of x >> shift for each job. One round for all; window - shift bits per element."""
    first = party.rank == 0
    wanted = [kind_of(job) for job in jobs]
    materials = [party.take(kind) for kind in wanted]
    kept = [drop(job.x.data, job.shift, not first) for job in jobs]                                      # 1
    masked = [material.masked("mask", z, 1 << (kind.window - 2) if first else 0, keeps=True)
              for z, kind, material in zip(kept, wanted, materials, strict=True)]
    opened = party.open("truncate", [(m, kind.window) for m, kind in zip(masked, wanted, strict=True)])  # 2
    done = []
    for job, kind, material, m, u in zip(jobs, wanted, materials, masked, opened, strict=True):          # 3
        wraps = material.draw("wraps") if kind.wrap_bits else None
        done.append(party.kernels.lifted(u, m, wraps, kind.window, first).reshape(job.x.shape))
        party.see(material, u, kind.guards, job.x.shape)
    return done
