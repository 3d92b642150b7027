"""Gated linear units: an activation of one half of a linear layer, times the other half. A `Function` of two shares.

    inner = f.recipe.of(GLU)(s, activated, gate, f.at("layer.0.glu"))
"""

from __future__ import annotations

from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.papers import cite
from secformer.protocols.quantities import GATE, INPUT, Quantity, measured, needs
from secformer.protocols.ranges import Site, bits, bounded, roomiest, roomy, with_air
from secformer.protocols.recipes import Function


@cite("shazeer2020glu", "GEGLU and SwiGLU: the product behind the activation")
@needs(INPUT, GATE)
def glu(s: Session, x: Share, gate: Share, at: Site) -> Share:
    """x * gate, element-wise, for x in at["input"] and gate in at["gate"].

    1 round; 6 to 16 bytes per element, beside the activation that gave x: for each pending factor 3 bytes, or 4 for a
    range beyond [-64, 64]; with a guard 4 for ranges longer than 8. A settled factor takes 8, unless it is promised
    to be small.
    1. return their product

    Any domain whose product fits a word: 2^30 with 16 fractional bits. While both stay within their ranges, no product
    wraps. A guarded session checks both. Error: |x| + |gate| units of the last place, of rounding both. Takes pending
    shares; the result has a truncation pending, in whole words, so that a linear layer takes it as it is. Raises
    RangeError where words do not hold the product.
    """
    reach = with_air(measured(at, INPUT)).reach * with_air(measured(at, GATE)).reach
    magnitude = roomiest(max(1, bits(reach)), lambda m: (s.fixed.window(2 * s.fixed.frac, m),))
    pair = (_within(s, v, quantity, at) for v, quantity in ((x, INPUT), (gate, GATE)))
    return s.mul(*pair, magnitude=magnitude, whole=True)                                         # 1


def _within(s: Session, x: Share, quantity: Quantity, at: Site) -> Share:
    """x with the promise that it lies within its range, which is checked when x is opened."""
    r = measured(at, quantity)
    return bounded(x, s, r, quantity.name, room=roomy(with_air(r)) if s.guarded else 0)


@cite("shazeer2020glu", "GEGLU and SwiGLU: the product behind the activation")
def glu_exact(s: Session, x: Share, gate: Share, at: Site) -> Share:
    """x * gate in float64, in the twin only."""
    return s.mul(x, gate)


GLU = Function("glu", glu, glu_exact)
