"""LayerNorm over the last axis: (x - mean) / sqrt(variance + eps) gamma + beta.

N rows, C channels. Mean and variance need no division: with t the row sum of x, C x - t and C sum(x^2) - t^2 are exact
integers of products that are opened together, so one round gives both the deviations times gamma and the variance. That
round also truncates x, and the last one the deviations: nothing is settled by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.fidelity import approximate, faithful
from secformer.protocols.papers import cite
from secformer.protocols.quantities import (
    GAIN,
    INPUT,
    NORM,
    ROW_SUM,
    VARIANCE,
    Quantity,
    apart,
    measured,
    needs,
    opens,
    positive,
)
from secformer.protocols.ranges import Range, Site, bits, roomiest, with_air
from secformer.protocols.rsqrt import deflation, rsqrt_goldschmidt, rsqrt_series

ROOT_BITS = 1        # inverse roots settle at 2 or more: relative rounding below 4e-6
LIFT_BITS = 1        # deviations settle at the row's least reach times 2 or more
COARSEST = 2         # most bits of x that a guard may cost
NEAR_ONE = 1.01      # an inverse root may be this much too large
TOLERANCE = 2.0**-5          # of v r^2 = 1, where a session checks it: CrypTen's root is off by 5e-3
SERIES_TOLERANCE = 2.0**-11  # the same for roots by series
BELOW = 0.25  # of the largest v, that a check of v starts below 0
CHECKED_BITS, ROOT_ROOM = 13, 10  # v is checked as a value below 2^13, and v r^2 fits a word with so many bits more


def holding_row_sums(fixed: FixedPoint, at: Site) -> int:
    """The least magnitude of a product whose row sums LayerNorm opens without settling it first."""
    return bits(with_air(at[ROW_SUM.name]).reach) if ROW_SUM.name in at else 1


class InverseRoot(Protocol):
    """2^scale_bits / sqrt(v) for v in the domain."""

    def __call__(self, s: Session, v: Share, domain: Range, *, scale_bits: int) -> Share: ...


@cite("ba2016layernorm", "layer normalisation")
@cite("luo2024secformer", "masked sine, taken to 1/sqrt")
@faithful
@needs(*NORM)
@opens(holding_row_sums)
def layernorm_series(s: Session, x: Share, gamma: Share, beta: Share | float, eps: float, at: Site) -> Share:
    """LayerNorm with 1/sqrt by series: x (N, C), gamma, beta (C,) -> (N, C), pending.

    3 rounds (7 where at["variance"] spans a ratio above about 600); 6 bytes per element, 7 where x reaches farther than
    about ten times its least standard deviation.
    Ranges as in `layernorm_by`. Error: that of `rsqrt_series`, 2e-5 relative to the result, and of rounding x at its
    place in words: 2^-17 of the least deviation, more where a word is too small for C times the reach of x (`Plan`).
    Takes a pending x.
    """
    return layernorm_by(s, x, gamma, beta, eps, at, rsqrt_series, SERIES_TOLERANCE)


@cite("luo2024secformer", "LayerNorm protocol")
@needs(*NORM)
@opens(holding_row_sums)
@approximate
def layernorm_goldschmidt(s: Session, x: Share, gamma: Share, beta: Share | float, eps: float, at: Site) -> Share:
    """LayerNorm with SecFormer's Goldschmidt inverse root: x (N, C), gamma, beta (C,) -> (N, C), pending.

    2 iterations + 1 rounds, or one more where words are too short for a row's deflation (see `rsqrt_goldschmidt`): 24
    with the paper's 11 (eta = 2000, where at["variance"] allows); 6 or 7 bytes per element. Ranges as in
    `layernorm_by`. Error: that of `rsqrt_goldschmidt`, relative to the result. Takes a pending x.
    """
    variance = positive(at, VARIANCE)
    eta, iterations = deflation(Range(variance.low + eps, variance.high + eps))

    def root(s: Session, v: Share, domain: Range, *, scale_bits: int) -> Share:
        unit = domain.low / (variance.low + eps)  # v is the variance times this
        return rsqrt_goldschmidt(s, v, domain, eta=eta * unit, iterations=iterations, scale_bits=scale_bits)

    return layernorm_by(s, x, gamma, beta, eps, at, root)


@cite("ba2016layernorm", "layer normalisation")
def layernorm_by(
    s: Session, x: Share, gamma: Share, beta: Share | float, eps: float, at: Site, inverse_root: InverseRoot,
    tolerance: float = TOLERANCE,
) -> Share:
    """LayerNorm with the inverse root given: 2 rounds beside the root's; 6 or 7 bytes per element.

    1. t <- row sums of x;  x^2, t^2, x gamma, t gamma                           one round
    2. v <- C sum(x^2) - t^2 = C^2 variance;  g <- C x gamma - t gamma
    3. r <- 1 / sqrt(v), one per row
    4. return g r + beta, since C cancels                                        one round

    Where a model has no beta, 0.0 stands in its place. Ranges: at["input"], of x; at["gain"], a power of two that
    bounds |gamma|; at["variance"] and at["row_sum"], of a row. While |x| stays within at["input"] and row sums within
    theirs, no product of steps 1 and 2 wraps, whatever the variance: so v and g are what they should be, and only r
    may be wrong. While the variance stays within its range too, the result is right. Where x is too narrow for the row
    sums, or they were not measured, x settles first: one round and 3 bytes per element more.
    Takes a pending x; the result has a truncation pending, in whole words.

    A guarded session checks the range of x, that t is no larger than its opening holds, that it is the sum of x once
    this is settled, that v is at most its measured largest, and v r^2 = 1 to `tolerance`.
    """
    plan, channels = Plan.of(s.fixed, x, eps, at, guarded=s.guarded), x.shape[-1]
    c, unit = bits(channels), 2.0**plan.near
    inputs = with_air(measured(at, INPUT))
    x = (x * unit).promise(plan.input_bits)
    most = 2.0**plan.input_bits
    x = s.checked(x, max(-most, inputs.low * unit), min(most, inputs.high * unit), "input")
    if plan.sums is None:
        (x,) = s.settle(x)
        x = x.promise(plan.input_bits)  # so that it is opened in few bytes again
        t = x.sum(-1, keepdims=True)
    else:
        t = x.sum(-1, keepdims=True)
        m = roomiest_sum(s.fixed, plan.sums, t.width - t.frac - 2)
        t = s.checked(t.promise(m), -(2.0**m), 2.0**m, "row_sum")  # a sum outside of its range does no harm before that
    squares, deviations = plan.square_bits, c + plan.deviation_bits
    xx, tt, xg, tg, x, t = s.mul_many([(x, x), (t, t), (x, gamma), (t, gamma)], settled=(x, t),
                                      magnitude=(squares, squares, deviations, deviations))      # 1
    if plan.sums is not None:
        rounding = 2.0 * (channels + 1) * 2.0**-s.fixed.frac  # of every x, and of t
        s.expect_within(x.sum(-1, keepdims=True) - t, -rounding, rounding, "row_sum")
    v = (xx.sum(-1, keepdims=True) * channels - tt).promise(plan.square_bits)                    # 2
    v = v + eps * channels**2 * unit**2
    g = (xg * channels - tg).promise(c + plan.deviation_bits) * 2.0 ** (plan.lift - c)
    return rescaled(s, g, v, plan, inverse_root, tolerance) + beta                               # 3, 4


@cite("ba2016layernorm", "layer normalisation")
def rescaled(s: Session, g: Share, v: Share, plan: Plan, inverse_root: InverseRoot, tolerance: float) -> Share:
    """g / sqrt(v) at the scales of the plan: a norm's last two steps, 1 round beside the root's. Pending, in whole
    words. A guarded session checks v and the root (see `layernorm_by`)."""
    r = inverse_root(s, v, plan.domain, scale_bits=plan.root_bits + plan.unit_bits)
    return times_root(s, g, r, v, plan, tolerance)


@cite("ba2016layernorm", "layer normalisation")
def times_root(s: Session, g: Share, r: Share, v: Share, plan: Plan, tolerance: float) -> Share:
    """The last step of `rescaled`, for the root r of v: 1 round."""
    beyond = plan.lift + plan.root_bits
    pairs = [(g, r)]
    if s.guarded:
        down = bits(plan.domain.high) - min(CHECKED_BITS, s.fixed.whole - ROOT_ROOM)
        pairs.append((v * 2.0**-down, r))
        high = plan.domain.high
        s.expect_within(v, -BELOW * high, high, plan.form.moment.name)  # or r could be the negative root
    y, *checked = s.mul_many(pairs, magnitude=[plan.result_bits + beyond, s.fixed.whole][: len(pairs)], whole=True)
    for vr in checked:
        rounding = 2.0 ** (down - s.fixed.frac) / plan.domain.low
        s.expect(vr, 2 * (plan.root_bits + plan.unit_bits) - down, tolerance + rounding, plan.form.moment.name, by=r,
                 times=plan.times**2)
    return y * 2.0**-beyond


@dataclass(frozen=True)
class Form:
    """Which norm it is. No step divides: instead of a mean, v is a sum, which the root makes up for.

    name     in messages
    moment   the quantity whose root divides: v is `square(C)` times that
    centred  whether the row's mean is subtracted; deviations are then taken C times, without a division, too
    """

    name: str
    moment: Quantity
    centred: bool

    def square(self, channels: int) -> float:
        return float(channels**2 if self.centred else channels)

    def unit(self, channels: int) -> float:
        """What the inverse root of v is multiplied with."""
        return 2.0 ** bits(channels) if self.centred else math.sqrt(channels)


LAYERNORM = Form("LayerNorm", VARIANCE, True)


@dataclass(frozen=True)
class Plan:
    """Where a norm's values lie, as powers of two. C channels; x is kept times 2^near; 2^c >= C. What is said here of
    LayerNorm holds for other norms with their `Form`: instead of the variance and C^2, its moment and square(C).

    form            which norm
    near            x settles finer where deviations are small and coarser where they are large; and so coarse that C^2
                    times the largest possible variance fits a word
    input_bits      |x| 2^near is below 2^this
    square_bits     C^2 (variance + eps) 4^near is below 2^this
    deviation_bits  |x - mean| |gamma| 2^near is below 2^this
    result_bits     |x - mean| |gamma| / sqrt(variance) is below 2^this, since no deviation exceeds sqrt(C variance)
    root_bits       roots settle times 2^(root_bits + unit_bits) times, at 2^ROOT_BITS or more
    unit_bits, times  2^unit_bits times is what roots are multiplied with so that C cancels; 1/2 < times <= 1
    lift            deviations settle times C / 2^(c - lift): the finer, the larger roots are
    domain          of C^2 (variance + eps) 4^near
    sums            where row sums of x 2^near lie; None where x cannot hold them while its truncation is pending
    """

    form: Form
    near: int
    input_bits: int
    square_bits: int
    deviation_bits: int
    result_bits: int
    root_bits: int
    unit_bits: int
    times: float
    lift: int
    domain: Range
    sums: Range | None

    @classmethod
    def of(cls, fixed: FixedPoint, x: Share, eps: float, at: Site, guarded: bool = False,
           form: Form = LAYERNORM) -> Plan:
        """Raises RangeError for missing ranges, and where words do not hold the products.

        Where it is `guarded`, x is opened in so many bits that no x outside of its range looks like one inside, if
        words have room for that.
        """
        channels, unit = x.shape[-1], form.unit(x.shape[-1])
        unit_bits, size = bits(unit), form.square(channels)
        c = unit_bits if form.centred else 0  # bits that deviations are larger by before they are rescaled
        reach, gain = bits(measured(at, INPUT).reach), positive(at, GAIN).high
        variance = positive(at, form.moment)
        most, holds = fixed.whole, x.width - x.frac - 2
        if reach > holds:
            raise RangeError(f"{form.name}'s input reaches {measured(at, INPUT).reach:g}, but the linear layer before "
                             f"it holds values below 2^{holds}; raise `magnitude`")
        reach = min(holds, bits(with_air(measured(at, INPUT)).reach))

        def square(near: int, m: int) -> int:
            return bits(size * (4.0**m + eps * 4.0**near))

        def deviation(m: int) -> int:
            return max(1, m + form.centred + bits(gain))

        near = -int(bits(variance.low + eps) / 2)  # the least deviation settles at about 1, less where words are full
        while max(square(near, reach + near), c + deviation(reach + near)) > most:
            near -= 1
        wanted = max(reach, min(apart(at, with_air(measured(at, INPUT))), holds)) if guarded else reach
        # a bit or two less of x may save a byte of each
        near -= next((cut for cut in range(COARSEST + 1)
                      if fixed.window(fixed.frac, max(1, wanted + near - cut))
                      == fixed.window(fixed.frac, max(1, reach + near))), 0)
        low, high = ((end + eps) * size * 4.0**near for end in (variance.low, variance.high))
        domain = Range(low, max(low, min(high, 2.0 ** square(near, reach + near))))
        coarse = math.ceil(math.log2(domain.high) / 2.0 - math.log2(unit))
        result, root = max(1, bits(NEAR_ONE * math.sqrt(channels) * gain)), ROOT_BITS + coarse
        if result + root > most:
            raise RangeError(f"{form.name}'s results reach 2^{result} for gains of {gain:g}, and inverse roots "
                             f"2^{root} for the {form.moment.name} in [{variance.low:g}, {variance.high:g}]; a product "
                             f"of both is below 2^{most}. Check the model's weights, or lower `frac`")
        lift = lifting(domain, unit, most - result - root)

        def windows(m: int) -> tuple[int, ...]:
            if m - near > holds:
                raise RangeError("x does not hold that")
            products = max(square(near, m), c + deviation(m))
            return (fixed.window(fixed.frac, m), fixed.window(2 * fixed.frac, products),
                    fixed.window(fixed.frac, deviation(m) + lift))

        m = roomiest(reach + near, windows)
        sums = row_sums(x, at) if form.centred else None
        if sums is not None:
            sums = Range(sums.low * 2.0**near, sums.high * 2.0**near)
        return cls(form, near, max(m, wanted + near), square(near, m), deviation(m), result, root, unit_bits,
                   unit / 2.0**unit_bits, lift, domain, sums)


def lifting(domain: Range, unit: float, room: int) -> int:
    """`Plan.lift`, `room` at most: what is multiplied with roots, unit / sqrt(v) for v in the domain, settles finer
    where they are large."""
    fine = math.ceil(math.log2(domain.low) / 2.0 - math.log2(unit))
    return min(max(0, LIFT_BITS - fine), room)


def row_sums(x: Share, at: Site) -> Range | None:
    """Where the row sums of x lie. None where its words do not hold them, or where they were not measured."""
    if ROW_SUM.name not in at:
        return None
    sums = with_air(measured(at, ROW_SUM))
    return sums if bits(sums.reach) <= x.width - x.frac - 2 else None


def roomiest_sum(fixed: FixedPoint, sums: Range, holds: int) -> int:
    """The largest magnitude of row sums whose opening takes no more bytes than their range does, `holds` at most."""
    def windows(m: int) -> tuple[int, ...]:
        if m > holds:
            raise RangeError("x does not hold that")
        return (fixed.window(fixed.frac, m),)

    return roomiest(min(max(1, bits(sums.reach)), holds), windows)


def layernorm_exact(x: np.ndarray, eps: float) -> np.ndarray:
    """(x - mean) / sqrt(variance + eps) in float64, the reference."""
    return np.asarray((x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps))
