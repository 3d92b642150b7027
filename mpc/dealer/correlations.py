"""The seam for dealers: what a party asks for correlated randomness, whoever makes it.

Our own is `source`: material expanded from seeds, with corrections from `service`. Another dealer (a protocol between
the parties, a trusted device, a file) implements `Correlations` and hands an object of its own to `Party.begin`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np

from secformer.mpc.dealer.kinds import Kind
from secformer.mpc.kernels.words import Masked, Sealing, plain


class Material(ABC):
    """One correlation in one party's hands: this party's share of every field that `Kind.fields` names."""

    @abstractmethod
    def draw(self, name: str) -> Any:
        """This party's share of a field, flat: `count` words as uint64, or uint8 where a derived field is xor-combined.

        A field burns: it is given once, and a second request raises ReusedRandomness. Derived fields are drawn in the
        kind's order; masks at any time before what depends on them.
        """

    def masked(self, name: str, words: Any, constant: int = 0, *, keeps: bool = False) -> Masked | Sealing:
        """Flat words + constant + this party's share of a mask, which burns, to be opened in all the mask's bits.
        `keeps` says that their `rest` is needed after the opening. Words may be `Dropped`."""
        own = plain(words)
        total = own + self.draw(name)
        return Masked(total + np.uint64(constant) if constant else total, own)

    def subtracted(self, name: str, words: Any) -> Masked | Sealing:
        """Flat words - this party's share of a mask, which burns, to be opened in all the mask's bits. Their `rest` is
        the share."""
        own, share = plain(words), self.draw(name)
        return Masked(own - share, own, share)


class Correlations(Protocol):
    """The correlations of one party in one run.

    Law      The two parties' shares of a field, combined, are its value: added mod 2^bits (with `carries`, added as
             integers of words below 2^bits), or xored. Values of masks are uniform and unknown to either party; values
             of derived fields obey the law in the kind's docstring, which `Kind.correlate` computes.
    Order    Both parties ask for equal kinds in one order, the program's, each at its own pace. The n-th correlation
             of one party belongs to the n-th of the other.
    Burning  No correlation is given twice, in this run or in another: a mask that serves twice reveals a difference.
    Weights  The mask of `WeightMask` number i stands for as long as the weight is open: later kinds that name weight i,
             in this run or another, mean this mask. A second `WeightMask` with the same number, asked for after
             `forget_weights` or after a failed run, is a new correlation: its mask is fresh, and replaces the old one.
    Caches   The mask of a field with `cache` number i stands, too: it begins alike in all correlations of all runs that
             name the same caches, and has nothing in common with those of other names.
    """

    def take(self, kind: Kind) -> Material:
        """The next correlation, which must be `kind`. Raises Desync if the other party is known to have asked for
        another kind."""
