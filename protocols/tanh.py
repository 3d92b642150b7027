"""tanh(x) on a bounded domain, from one opening."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.clip import clip
from secformer.protocols.fidelity import faithful
from secformer.protocols.fits import Fit, choose
from secformer.protocols.papers import cite
from secformer.protocols.quantities import INPUT, measured, needs
from secformer.protocols.ranges import Site, rounded_out

TOLERANCE = 3e-5  # largest absolute error of a fit
WIDEST = 28.0   # in ranges up to this size, inputs are used as they are
LIMIT = 10.0    # in wider ranges, inputs are clipped to this size: beyond it |tanh| is 1 to 4e-9


@cite("devlin2019bert", "the pooler's tanh")
@cite("luo2024secformer", "masked sine, taken to many harmonics")
@cite("huybrechs2010", "Fourier extension of tanh")
@faithful
@needs(INPUT)
def tanh(s: Session, x: Share, at: Site) -> Share:
    """tanh(x) for x in at["input"].   1 round; 3 bytes per element.

    1. where the range exceeds [-28, 28]: clip x to [-10, 10]                two rounds, about 10 bytes per element
    2. open x mod P; sum the sines of the fit (tanh is odd)

    Any domain. Error, absolute: at most 3e-5 (the fit's tolerance). Takes a pending x; the result has a truncation
    pending.
    """
    reach = max(2.0, rounded_out(measured(at, INPUT), 1.0).reach)
    if reach > WIDEST:
        x, _ = clip(s, x, LIMIT, reach=reach)                                                    # 1
        return s.series(x, [tanh_fit(LIMIT).series])[0]
    return s.series(x, [tanh_fit(reach).guarded])[0]                                              # 2


@lru_cache(maxsize=64)
def tanh_fit(reach: float) -> Fit:
    """The fit for [-reach, reach]. Raises RangeError where it is too wide for the tolerance."""
    return choose(np.tanh, -reach, reach, tolerance=TOLERANCE, cos=False)


def tanh_exact(x: np.ndarray) -> np.ndarray:
    """tanh in float64, the reference."""
    return np.asarray(np.tanh(x))

