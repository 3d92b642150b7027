"""The largest value of each feature over a text's tokens: a `Function` that sentence embeddings ask for."""

from __future__ import annotations

import numpy as np

from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.papers import cite
from secformer.protocols.quantities import INPUT, measured, needs
from secformer.protocols.ranges import Site, bits
from secformer.protocols.recipes import Function


@cite("reimers2019sbert", "MAX pooling")
@needs(INPUT)
def maximum(s: Session, x: Share, at: Site) -> Share:
    """The largest of every column of x (B, T, C) along T, for x in at["input"]: (B, C), exact.

    2 ceil(log2 T) + 1 rounds; about 8 bytes per element of x. A guarded session checks x: a round and 4 bytes more.
    1. a tree of comparisons at full precision
    2. widen the result to whole words: (B, C) elements
    """
    r = measured(at, INPUT)
    reach = bits(r.reach + 1.0)
    (x,) = s.settle(s.checked(x.promise(reach), r.low, r.high, "input"))
    found = s.maximum(x, 1, bound=2.0**reach)                                                    # 1
    (found,) = s.lift(found)                                                                     # 2
    return found.reshape(x.shape[0], x.shape[2])


@cite("reimers2019sbert", "MAX pooling")
def maximum_exact(s: Session, x: Share, at: Site) -> Share:
    """The same in float64, in the twin only."""
    return s.apply(lambda v: np.max(v, axis=1), x)


MAXIMUM = Function("maximum", maximum, maximum_exact)
