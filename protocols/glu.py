"""Gated linear units: an activation of one half of a linear layer, times the other half. A `Function` of two shares.

    inner = f.recipe.of(GLU)(s, activated, gate, f.at("layer.0.glu"))
"""

from __future__ import annotations

from secformer.mpc.errors import RangeError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.papers import cite
from secformer.protocols.quantities import GATE, INPUT, Quantity, measured, needs
from secformer.protocols.ranges import Site, bits, roomiest, roomy, with_air
from secformer.protocols.recipes import Function


@cite("shazeer2020glu", "GEGLU and SwiGLU: the product behind the activation")
@needs(INPUT, GATE)
def glu(s: Session, x: Share, gate: Share, at: Site) -> Share:
    """x * gate, element-wise, for x in at["input"] and gate in at["gate"].

    2 rounds, one less where both are settled; 16 to 20 bytes per element for products to 2^14, beside the
    activation that gave x.
    1. settle x and gate                                           one round; 3 or 4 bytes each, by their ranges;
                                                                   with a guard 4 for ranges longer than 8
    2. return their product                                        one round; 5 to 8 bytes each, by both ranges

    Any domain whose product fits a word: 2^30 with 16 fractional bits. While both stay within their ranges, no product
    wraps. A guarded session checks both. Error: |x| + |gate| units of the last place, of rounding both. Takes pending
    shares; the result has a truncation pending. Raises RangeError where words do not hold the product.
    """
    reach = with_air(measured(at, INPUT)).reach * with_air(measured(at, GATE)).reach
    magnitude = roomiest(max(1, bits(reach)), lambda m: (s.fixed.window(2 * s.fixed.frac, m),))
    pair = (_within(s, v, quantity, at) for v, quantity in ((x, INPUT), (gate, GATE)))           # 1
    return s.mul(*pair, magnitude=magnitude)                                                     # 2


def _within(s: Session, x: Share, quantity: Quantity, at: Site) -> Share:
    """x with the promise that it lies within its range, which is checked when x is settled."""
    if not s.due(x):
        return x
    r, holds = with_air(measured(at, quantity)), x.width - x.frac - 2
    least = max(1, bits(r.reach), min(holds, roomy(r)) if s.guarded else 1)

    def windows(m: int) -> tuple[int, ...]:
        if m > holds:
            raise RangeError(f"the range of {quantity.name!r} reaches {r.reach:g}, but the layer before it holds "
                             f"values below 2^{holds}; raise `magnitude`")
        return (s.fixed.window(s.fixed.frac, m),)

    return s.checked(x.promise(roomiest(least, windows)), r.low, r.high, quantity.name)


@cite("shazeer2020glu", "GEGLU and SwiGLU: the product behind the activation")
def glu_exact(s: Session, x: Share, gate: Share, at: Site) -> Share:
    """x * gate in float64, in the twin only."""
    return s.mul(x, gate)


GLU = Function("glu", glu, glu_exact)
