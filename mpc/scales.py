"""Fixed-point bookkeeping: which truncations are due, and in how many bits a verb computes. Pure functions of public
facts, the same at both parties, in the twin and in the recorder."""

from __future__ import annotations

from typing import NamedTuple

from secformer.mpc.shares import Share


class Truncation(NamedTuple):
    """A truncation that is due.

    x       the share, promised to lie in the window
    shift   fractional bits to drop
    window  bits that hold x with the truncation's headroom
    width   the result is right modulo 2^width
    """

    x: Share
    shift: int
    window: int
    width: int
