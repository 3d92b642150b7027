"""1/y and 1/sqrt(v) by finding the octave of the value and a polynomial there: what PUMA's framework does, one value a
row. The framework finds the highest bit through boolean shares; here all powers of two are compared from one opening.
"""

from __future__ import annotations

import math

from secformer.mpc.errors import RangeError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.papers import cite
from secformer.protocols.ranges import Range, bits
from secformer.protocols.rsqrt import PRODUCT_MAGNITUDE

TOP_BITS = 12                  # values are moved below 2^12, so that they settle with as many bits as a word fills
UNIT_BITS = 8                  # values within an octave are kept times 2^8
WIDE = 20                      # magnitude of products: leaves their sums within a window
SLACK = 9                      # a comparison errs by 2^-9 of its threshold at most
MOST_OCTAVES = 20
RECIPROCAL_START = 2.9142      # 1/u is about this less 2 u, for u in [0.5, 1)
ROOT = (4.14285016, -15.47994394, 38.4714796, -49.86605845, 26.02942339)  # 1/sqrt(u), u in [0.25, 0.5): u^0 to u^4
START_BITS = 20                # fractional bits of the reciprocal's constant
FIRST_BITS, HIGHER_BITS = 14, 12  # fractional bits of the root's constants: of u, and of higher powers
ROOT_STEP_BITS = 16            # fractional bits of the powers of sqrt 2


@cite("dong2023puma", "softmax: one reciprocal per row")
@cite("ma2023secretflow", "division: normalisation and Goldschmidt's iteration")
def reciprocal_octaves(s: Session, y: Share, domain: Range, *, scale_bits: int) -> Share:
    """2^scale_bits / y for y in the domain.   8 rounds; about 40 bytes per row.

    1. below_i <- [y < top 2^-i] for all octaves of the domain                   three rounds, one opening
    2. c <- the power of two that brings y to u = y c in [0.5, 1), linear in the below_i;  u     one round
    3. r <- 2.9142 - 2 u;  e <- 1 - r u = 1 - 2.9142 u + 2 u^2                   one round
    4. r <- r (1 + e);  e <- e^2;  r <- r (1 + e)                                two rounds
    5. return r c                                                                one round

    Domain: up to 20 octaves. Error, relative: 2e-4 for up to 10 octaves, 5.5e-5 of it from the framework's two
    iterations; every further octave costs a bit. Takes a pending y; the result may have a truncation pending. Raises
    RangeError for a domain that is not positive or too wide.
    """
    y, move, below = _compared(s, y, domain)                                                     # 1
    c = _stepped(s, y, below, [2**i for i in range(len(below) + 1)])
    u = _within(s, y, c, below, UNIT_BITS - TOP_BITS)                                            # 2
    one = 2.0**UNIT_BITS
    uu = s.square(u, magnitude=2 * UNIT_BITS + 1) * (1.0 / one)                                  # 3
    start = round(RECIPROCAL_START * 2.0**START_BITS) * 2.0**-START_BITS  # the same in r and e: else they disagree
    r = (start * one - u * 2).promise(UNIT_BITS + 2)
    e = (one - _times(u, start, START_BITS) + uu * 2).promise(UNIT_BITS - 2)
    re, ee = s.mul_many([(r, e), (e, e)], magnitude=WIDE)                                        # 4
    r, e = (r + re * (1.0 / one)).promise(UNIT_BITS + 2), (ee * (1.0 / one)).promise(UNIT_BITS - 2)
    r = (r + s.mul(r, e, magnitude=WIDE) * (1.0 / one)).promise(UNIT_BITS + 2)
    return s.mul(r, c, magnitude=PRODUCT_MAGNITUDE) * 2.0 ** (scale_bits + move - TOP_BITS - UNIT_BITS)  # 5


@cite("dong2023puma", "LayerNorm: one inverse square root")
@cite("ma2023secretflow", "inverse square root: normalisation and a polynomial")
@cite("lu2020root", "polynomial for 1/sqrt within two octaves")
def rsqrt_octaves(s: Session, v: Share, domain: Range, *, scale_bits: int) -> Share:
    """2^scale_bits / sqrt(v) for v in the domain.   7 rounds; about 32 bytes per row.

    1. below_i <- [v < top 2^-i] for all octaves of the domain                   three rounds, one opening
    2. c <- the power of two that brings v to u = v c in [0.25, 0.5);  u         one round
    3. r <- the framework's polynomial of degree 4 in u                          two rounds
    4. return r sqrt(c), sqrt(c) being linear in the below_i                     one round

    Domain: up to 20 octaves. Error, relative: 2e-4, of the polynomial 8.3e-5. Takes a pending v; the result has a
    truncation pending. Raises RangeError for a domain that is not positive or too wide.
    """
    v, move, below = _compared(s, v, domain)                                                     # 1
    c = _stepped(s, v, below, [2**i for i in range(len(below) + 1)])
    # steps of sqrt(2^(i - 1)), since u is half as large as for a reciprocal; an odd `move` adds a factor sqrt(2)
    steps = [round(2.0 ** (ROOT_STEP_BITS + (i - 1 + move % 2) / 2.0)) for i in range(len(below) + 1)]
    root = _stepped(s, v, below, steps) * 2.0**-ROOT_STEP_BITS
    one = 2.0**UNIT_BITS
    u = _within(s, v, c, below, UNIT_BITS - TOP_BITS - 1)                                        # 2
    uu = (s.square(u, magnitude=PRODUCT_MAGNITUDE) * (1.0 / one)).promise(UNIT_BITS - 1)         # 3
    higher = s.mul_many([(u, uu), (uu, uu)], magnitude=PRODUCT_MAGNITUDE)
    r = ROOT[0] * one + _times(u, ROOT[1], FIRST_BITS) + _times(uu, ROOT[2], HIGHER_BITS)
    for power, constant in zip(higher, ROOT[3:], strict=True):
        r = r + _times((power * (1.0 / one)).promise(UNIT_BITS - 2), constant, HIGHER_BITS)
    r = r.promise(UNIT_BITS + 2)                                                                 # 4
    whole = scale_bits + move // 2 - TOP_BITS // 2 - UNIT_BITS
    return s.mul(r, root, magnitude=PRODUCT_MAGNITUDE) * 2.0**whole


def _compared(s: Session, y: Share, domain: Range) -> tuple[Share, int, list[Share]]:
    """y 2^move, below 2^TOP_BITS, the move, and [y 2^move < 2^(TOP_BITS - i)] for i = 1, 2, ..."""
    if not 0.0 < domain.low <= domain.high < math.inf:
        raise RangeError(f"a normalisation takes a positive domain, got [{domain.low:g}, {domain.high:g}]; "
                         f"check the range profile")
    top = bits(domain.high * (1.0 + 2.0**-SLACK))
    count = top - math.floor(math.log2(domain.low))
    if count > MOST_OCTAVES:
        raise RangeError(f"a normalisation covers {MOST_OCTAVES} octaves, but the range profile has {count}; check "
                         f"the model's weights")
    move = TOP_BITS - top
    y = (y * 2.0**move).promise(TOP_BITS)
    if count == 1:
        return y, move, []
    cuts = [2.0 ** (TOP_BITS - i) for i in range(1, count)]
    precision = max(0, count - 1 + SLACK - TOP_BITS)
    return y, move, s.less(y, cuts, bound=2.0**TOP_BITS, precision=precision)


def _stepped(s: Session, like: Share, below: list[Share], values: list[int]) -> Share:
    """values[i] where the first i of the falling `below` hold: local, no fractional bits."""
    if not below:
        return s.public(float(values[0]), like.shape)
    total = below[0] * (values[1] - values[0]) + values[0]
    for bit, lower, upper in zip(below[1:], values[1:], values[2:], strict=False):
        total = total + bit * (upper - lower)
    return total.promise(max(1, bits(float(max(values)) + 1.0)))


def _within(s: Session, y: Share, c: Share, below: list[Share], move: int) -> Share:
    """y c 2^move, with a few bits beyond the session's, so that there is room for a constant's. Of a single octave, y
    itself is settled."""
    if below:
        return s.mul(y, c, magnitude=TOP_BITS + 1) * 2.0**move
    (u,) = s.settle(y * 2.0**move)
    return u


def _times(x: Share, constant: float, fraction: int) -> Share:
    """x times a constant of so many fractional bits: an integer factor, so that x need not settle first."""
    return x * round(constant * 2.0**fraction) * 2.0**-fraction
