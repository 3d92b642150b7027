"""Quantities: what a protocol needs measured at its call site, declared on the protocol itself.

    @needs(SCORE, SPREAD, EXP_SUM)
    def softmax_series(s, scores, values, mask, at): ...

A quantity says how it is computed from the function's inputs, and how its measured range is widened by a margin. A
protocol of one's own may declare quantities of its own. A function without a declaration is measured for the defaults
that `recipes.DEFAULTS` lists.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from secformer.mpc.errors import RangeError, SettingsError
from secformer.mpc.fixed import FixedPoint
from secformer.protocols.ranges import Range, Site, bits, roomy

F = TypeVar("F", bound=Callable[..., Any])

QUAD_SHIFT = 5.0  # c of 2Quad: weights are (score + c)^2
SLACK = 0.25      # distance added to both ends, so that a range measured as a point is not one
LEAST_GAIN = 2.0**-16  # a LayerNorm's gains count as this large at least: the last place of 16 fractional bits


@dataclass(frozen=True)
class Widening:
    """How a measured range is widened.

    ratio        whether ratios count, as for positive sums (which also allows for longer texts), or distances
    least, most  bounds that the quantity never leaves: widening stops there
    fixed        the quantity depends on the model alone and not on its texts: it is not widened
    """

    ratio: bool = False
    least: float = -math.inf
    most: float = math.inf
    fixed: bool = False

    def __call__(self, r: Range, margin: float) -> Range:
        """The range with its margin (1: as it is). By distance, a fraction of its length and SLACK are added at both
        ends; by ratio, the ends are divided and multiplied by 2 margin - 1."""
        if self.fixed:
            return r
        if self.ratio:
            factor = 2.0 * margin - 1.0
            low, high = r.low / factor, r.high * factor
        else:
            more = (margin - 1.0) * (r.high - r.low) / 2.0 + (SLACK if margin > 1.0 else 0.0)
            low, high = r.low - more, r.high + more
        return Range(min(r.low, max(self.least, low)), max(r.high, min(self.most, high)))

    def coarse(self, r: Range) -> Range:
        """The ends moved outward, to powers of two for ratios (or to 0), else to whole numbers: similar ranges become
        the same one, so that constants chosen by them are chosen once."""
        if self.ratio:
            return Range(_power(r.low, math.floor), _power(r.high, math.ceil))
        return Range(float(math.floor(r.low)), float(math.ceil(r.high)))


def _power(x: float, rounded: Callable[[float], int]) -> float:
    return float(2.0 ** rounded(math.log2(x))) if x > 0.0 else 0.0


DISTANCE, RATIO = Widening(), Widening(ratio=True, least=0.0)


@dataclass(frozen=True)
class Quantity:
    """A quantity whose range a protocol chooses its constants by.

    name      of its range in a profile, and at a call site
    of        (xp, *inputs) -> the values whose extremes count. xp is `numpy` or `torch`: spell keywords as both do
              (axis, keepdims). Inputs are the arrays that the function is given:
                gelu, tanh  x, of any shape
                further functions  x, or the several shares that they take
                layernorm   x (N, C), gamma (C,), beta (C,) or 0.0
                softmax     scores (B, H, Q, T), values (B, H, T, D), real, which broadcasts to the scores and is True
                            where one is real. Others hold their row's largest real score: extremes ignore them; sums
                            multiply by `real`.
    widening  how a margin widens the measured range
    """

    name: str
    of: Callable[..., Any]
    widening: Widening = DISTANCE


def needs(*quantities: Quantity) -> Callable[[F], F]:
    """Decorator: declares what a protocol asks its call site for. Raises SettingsError for a name that stands for
    something else: two quantities of one name, or another one under the name of a known one."""
    for quantity in quantities:
        others = [q for q in (*quantities, *KNOWN.values()) if q.name == quantity.name and q != quantity]
        if others:
            raise SettingsError(f"the name {quantity.name!r} stands for another quantity already; choose a name of "
                                f"your own. Known: {', '.join(KNOWN)}")

    def mark(function: F) -> F:
        function.__needs__ = quantities  # type: ignore[attr-defined]
        return function

    return mark


def needed(function: Callable[..., Any], default: tuple[Quantity, ...]) -> tuple[Quantity, ...]:
    """What a function declares with `needs`, or the default where it declares nothing."""
    return getattr(function, "__needs__", default)


def opens(least: Callable[[FixedPoint, Site], int]) -> Callable[[F], F]:
    """Decorator: declares the least magnitude of a product, at a call site, that the protocol opens as it is. It would
    settle a narrower one first. A protocol without it takes any."""
    def mark(function: F) -> F:
        function.__opens__ = least  # type: ignore[attr-defined]
        return function

    return mark


def opened(function: Callable[..., Any], fixed: FixedPoint, at: Site) -> int:
    """What a function declares with `opens`; 1 where it declares nothing."""
    least = getattr(function, "__opens__", None)
    return 1 if least is None else max(1, least(fixed, at))


def measured(at: Site, quantity: Quantity) -> Range:
    """The range of a quantity that a protocol needs. Raises RangeError where it is missing or not an interval of real
    numbers."""
    name = quantity.name
    if name not in at:
        raise RangeError(f"this protocol needs the range of {name!r} at its call site, got {sorted(at)}; "
                         f"measure the model again: secformer profile")
    found = at[name]
    if not (math.isfinite(found.low) and math.isfinite(found.high) and found.low <= found.high):
        raise RangeError(f"the range of {name!r} must be finite with low <= high, got {found.low} to {found.high}; "
                         f"measure the model again: secformer profile")
    return found


def positive(at: Site, quantity: Quantity) -> Range:
    """`measured`, for a quantity that is never negative and not always zero. Raises RangeError otherwise."""
    found = measured(at, quantity)
    if found.low < 0.0 or found.high <= 0.0:
        raise RangeError(f"the range of {quantity.name!r} must be positive, got {found.low:g} to {found.high:g}; "
                         f"check the model's weights, then measure it again")
    return found


def apart(at: Site, r: Range) -> int:
    """The least magnitude of a product at which few values outside of a range look like ones inside, as a guard sees
    them: either ROOM times the range is opened, and values are off by a multiple of that; or as much as no text
    exceeds, and there are none. What is opened reaches 2^(magnitude + 2)."""
    room = roomy(r)
    return min(room, bits(at[MOST.name].high + r.reach) - 2) if MOST.name in at else room


def real_scores(xp: Any, scores: Any, real: Any) -> Any:
    """Scores (B, H, Q, T), of which those that are not `real` hold the largest real score of their row."""
    largest = xp.amax(xp.where(real, scores, -math.inf), axis=-1, keepdims=True)
    return xp.where(real, scores, largest)


def _input(xp: Any, x: Any, *parameters: Any) -> Any:
    return x


def _gate(xp: Any, x: Any, gate: Any) -> Any:
    return gate


def _gain(xp: Any, x: Any, gamma: Any, *beta: Any) -> Any:
    """The power of two that bounds |gamma|: a profile is public, and says no more of a secret parameter."""
    return xp.exp2(xp.ceil(xp.log2(xp.clip(xp.amax(xp.abs(gamma)), LEAST_GAIN, None))))


def _variance(xp: Any, x: Any, gamma: Any, beta: Any) -> Any:
    """Of every row."""
    centred = x - xp.mean(x, axis=-1, keepdims=True)
    return xp.mean(centred * centred, axis=-1)


def _mean_square(xp: Any, x: Any, *gamma: Any) -> Any:
    """Of every row."""
    return xp.mean(x * x, axis=-1)


def _row_sum(xp: Any, x: Any, gamma: Any, beta: Any) -> Any:
    return xp.sum(x, axis=-1)


def _value(xp: Any, scores: Any, values: Any, real: Any) -> Any:
    return values


def _score(xp: Any, scores: Any, values: Any, real: Any) -> Any:
    return scores


def _spread(xp: Any, scores: Any, values: Any, real: Any) -> Any:
    """Scores less their row's largest."""
    return scores - xp.amax(scores, axis=-1, keepdims=True)


def _maximum(xp: Any, scores: Any, values: Any, real: Any) -> Any:
    """The largest score of every row."""
    return xp.amax(scores, axis=-1)


def _exp_sum(xp: Any, scores: Any, values: Any, real: Any) -> Any:
    return _row_sums(xp, xp.exp(_spread(xp, scores, values, real)), real)


def _log_mean(xp: Any, scores: Any, values: Any, real: Any) -> Any:
    """Logarithms of rows' means of exp(scores), over real columns: they depend little on how many there are."""
    count = xp.sum(real * xp.ones_like(scores), axis=-1)
    return xp.amax(scores, axis=-1) + xp.log(_exp_sum(xp, scores, values, real)) - xp.log(count)


def _quad_sum(xp: Any, scores: Any, values: Any, real: Any) -> Any:
    return _row_sums(xp, (scores + QUAD_SHIFT) ** 2, real)


def _relu_sum(xp: Any, scores: Any, values: Any, real: Any) -> Any:
    return _row_sums(xp, xp.clip(scores, 0.0, None), real)


def _row_sums(xp: Any, weights: Any, real: Any) -> Any:
    """Sums over real columns, from left to right, so that a profile's last bits do not depend on memory layout."""
    return xp.cumsum(weights * real, axis=-1)[..., -1]


INPUT = Quantity("input", _input)
GATE = Quantity("gate", _gate)  # what a value is multiplied with
GAIN = Quantity("gain", _gain, Widening(ratio=True, fixed=True))
VARIANCE = Quantity("variance", _variance, RATIO)
MEAN_SQUARE = Quantity("mean_square", _mean_square, RATIO)
ROW_SUM = Quantity("row_sum", _row_sum)
VALUE = Quantity("value", _value)
SCORE = Quantity("score", _score)
SPREAD = Quantity("spread", _spread, Widening(most=0.0))               # the row's largest score is 0 below itself
MAXIMUM = Quantity("maximum", _maximum)
EXP_SUM = Quantity("exp_sum", _exp_sum, Widening(ratio=True, least=1.0))  # the row's largest score adds 1
LOG_MEAN = Quantity("log_mean", _log_mean)
QUAD_SUM = Quantity("quad_sum", _quad_sum, RATIO)
RELU_SUM = Quantity("relu_sum", _relu_sum, RATIO)
MOST = Quantity("most", _input, Widening(ratio=True, fixed=True))  # what no text exceeds (see `families/certain`)
NORM = INPUT, GAIN, VARIANCE, ROW_SUM
ATTENTION = VALUE, SCORE, SPREAD, EXP_SUM, LOG_MEAN, QUAD_SUM, RELU_SUM, MAXIMUM
KNOWN = MappingProxyType({q.name: q for q in (*NORM, MEAN_SQUARE, *ATTENTION, GATE, MOST)})
