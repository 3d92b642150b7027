"""Clipping to a public interval, for functions that are simple outside of it."""

from __future__ import annotations

from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.papers import cite
from secformer.protocols.ranges import Range


@cite("luo2024secformer", "segments outside which a function is a line")
def clip(s: Session, x: Share, limit: float, *, reach: float) -> tuple[Share, Share]:
    """(x clipped to [-limit, limit], max(x - limit, 0)) for |x| <= reach.   2 rounds; about 10 bytes per element.

    1. over, up <- relu(x - limit), relu(x + limit)           one batch
    2. return up - over - limit, over

    Exact up to one unit in the last place. Takes a pending x; the results are settled.
    """
    both = s.concatenate([(x - limit).reshape(*x.shape, 1), (x + limit).reshape(*x.shape, 1)], -1)
    cut = s.relu(both, bound=reach + limit + 1.0)                                                # 1
    return cut[..., 1] - cut[..., 0] - limit, cut[..., 0]                                        # 2


@cite("luo2024secformer", "segments outside which a function is a line")
def floor_at(s: Session, x: Share, low: float, domain: Range) -> Share:
    """max(x, low) for x in the domain.   2 rounds; about 5 bytes per element. Takes a pending x; settled."""
    return s.relu(x - low, bound=max(low - domain.low, domain.high - low) + 1.0) + low
