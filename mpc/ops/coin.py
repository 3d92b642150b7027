"""A coin that both parties toss: fresh uniform words that neither knew before, as the seed of a stream of public words.

The dealer knows them. A party that answers last can choose them.
"""

from __future__ import annotations

from secformer.mpc.dealer.kinds import Coin
from secformer.mpc.party import Opens, Party
from secformer.mpc.prg import SEED_BYTES, Stream

COIN = Coin(SEED_BYTES // 8)


def toss(party: Party) -> Opens:
    """The same stream at both parties. One round, 32 bytes from each party."""
    (words,) = yield "coin", [(party.take(COIN).draw("mask"), 64)]
    return [Stream.under(words, party.kernels)]
