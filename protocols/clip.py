"""Clipping to a public interval, for functions that are simple outside of it."""

from __future__ import annotations

from secformer.mpc.scales import WIDEST_COMPARISON
from secformer.mpc.session import ROOM, Session
from secformer.mpc.shares import Share
from secformer.protocols.papers import cite
from secformer.protocols.ranges import Range, bits


@cite("luo2024secformer", "segments outside which a function is a line")
def clip(s: Session, x: Share, limit: float, *, reach: float) -> tuple[Share, Share]:
    """(x clipped to [-limit, limit], max(x - limit, 0)) for |x| <= reach.   2 rounds; about 10 bytes per element.

    1. over, up <- relu(x - limit), relu(x + limit)           one batch
    2. return up - over - limit, over

    Exact up to one unit in the last place. A comparison has 33 bits: for a reach beyond about 2^15, the results have as
    few fractional bits as are left beside it, and are up to two units of their last place too small. Takes a pending x;
    the results are settled.
    """
    both = s.concatenate([(x - limit).reshape(*x.shape, 1), (x + limit).reshape(*x.shape, 1)], -1)
    bound = reach + limit + 1.0
    cut = s.relu(both, bound=bound, precision=_precision(s, bound))                              # 1
    return cut[..., 1] - cut[..., 0] - limit, cut[..., 0]                                        # 2


@cite("luo2024secformer", "segments outside which a function is a line")
def floor_at(s: Session, x: Share, low: float, domain: Range) -> Share:
    """max(x, low) for x in the domain.   2 rounds; about 5 bytes per element. Takes a pending x; settled.

    Less exact in a domain longer than about 2^15, as `clip`.
    """
    bound = max(low - domain.low, domain.high - low) + 1.0
    return s.relu(x - low, bound=bound, precision=_precision(s, bound)) + low


def _precision(s: Session, bound: float) -> int:
    """Fractional bits of a comparison: the session's, or what the widest one leaves beside the bound."""
    return min(s.fixed.frac, WIDEST_COMPARISON - 1 - bits((1.0 + ROOM) * bound + 2.0))
