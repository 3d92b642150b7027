"""ReLU, which some families have in place of GeLU, or beside it: a `Function` that a recipe is asked for.

    inner = f.recipe.of(RELU)(s, inner, f.at("layer.0.relu"))

Smooth ones are in `gates`.
"""

from __future__ import annotations

import numpy as np

from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.papers import cite
from secformer.protocols.quantities import INPUT, measured, needs
from secformer.protocols.ranges import Site, bits
from secformer.protocols.recipes import Function


@cite("vaswani2017attention", "feed-forward networks with ReLU")
@needs(INPUT)
def relu(s: Session, x: Share, at: Site) -> Share:
    """max(x, 0) for x in at["input"], exact.   2 rounds; about 6 bytes per element. Takes a pending x."""
    return s.relu(x, bound=2.0 ** bits(measured(at, INPUT).reach + 1.0))


@cite("vaswani2017attention", "feed-forward networks with ReLU")
def relu_exact(s: Session, x: Share, at: Site) -> Share:
    """max(x, 0) in float64, in the twin only."""
    return s.apply(lambda v: np.maximum(v, 0.0), x)


RELU = Function("relu", relu, relu_exact)
