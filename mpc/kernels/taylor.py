"""Taylor coefficients of what is computed in public: every kernel evaluates them in one order, so that all agree to the
last bit."""

from __future__ import annotations

import math

ROUND = 6755399441055744.0  # 1.5 * 2^52: adding and subtracting it rounds to the nearest even integer
# Of sine and cosine; beyond y^16 the terms vanish below 2^-57 for |y| <= pi/4.
SIN = tuple((-1.0) ** i / math.factorial(2 * i + 1) for i in range(8))
COS = tuple((-1.0) ** i / math.factorial(2 * i) for i in range(9))
# Of the exponential; beyond y^11 they vanish below 2^-52 for y <= 1/4, and six squarings make e^16 of e^(1/4).
EXP = tuple(1.0 / math.factorial(i) for i in range(12))
SQUARINGS = 6
