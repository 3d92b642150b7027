"""A party's side of the check of unit rows: random sketches of its share (Boyle, Gilboa, Ishai 2016, section 4).

For a row x of V words modulo 2^64, which the client fixed before, and public random vectors r and s:

1. coin: both parties open fresh uniform words, the seed of r and s                   one round, 32 bytes
2. each party, on its share: <r, x>, <s, x>, <r s, x>, <1, x>                         local
3. z = <r, x> <s, x> - <r s, x>, a product of secrets                                 one round
4. test whether all z and all <1, x> - 1 are 0, as for unit vectors (see `zero`)      two rounds, 96 bytes

z = r^T M s for M = x x^T - diag(x), which is 0 only for the zero vector and unit vectors: off the diagonal it has
x_i x_j, on it x_i (x_i - 1). Let the model read x modulo 2^w. If x is no unit vector modulo 2^w, and its sum is 1, some
entry of M is no multiple of 2^w. So for the least power 2^m that divides M, m < w, and z = 0 says that a bilinear
form with an odd entry is 0 modulo 2^n, n = 64 - m. That has the probability (n + 2) / 2^(n + 1) for uniform r and s:
M s / 2^m is divisible by 2^k with probability 2^-k at most, and then r hits 0 with probability 2^-(n - k).
Two vectors r and s in place of one, r = s, so that n is not halved: modulo 2^n, a square is 0 for every multiple of
2^(n/2).

Nothing of z is opened. If it were, a party that adds d to its share of <r, x> would have z + d <s, x>, which names the
place of the 1. Boneh, Boyle, Corrigan-Gibbs, Gilboa and Ishai (2021) meet the same attack with rows that come twice,
the second time with a random factor. Here the dealer's factor does this, and clients send nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secformer.mpc.party import Party
from secformer.mpc.prg import Stream


def sketches(party: Party, rows: Any, spans: Sequence[tuple[int, int]], count: int, coin: Stream) -> Any:
    """This party's shares of step 2 for rows (N, C) and `count` pairs of vectors: (S, N, 3 count + 1)."""
    found = []
    for start, stop in spans:
        left, right = coin.words(2 * count * (stop - start)).reshape(2, count, stop - start)
        found.append(party.kernels.sketches(rows, start, left, right))
    return party.kernels.xp.stack(found)
