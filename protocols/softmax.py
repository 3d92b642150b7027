"""Attention's softmax(scores) @ values, normalised after the product: exact softmax, and SecFormer's 2Quad.

B texts, H heads, Q queries, T keys, D values per head. scores (B, H, Q, T), values (B, H, T, D). The mask is public and
True where a score is real, (B, T) where every row has the same columns, else four axes that broadcast to the scores.
Every row has a real column. Dividing the D values of a row after the product is cheaper than dividing its T weights
before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from secformer.mpc.caches import Kept
from secformer.mpc.errors import RangeError, ShapeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.functions import HIGHEST
from secformer.mpc.ring import WORD_BITS
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.exp import exp, is_cut
from secformer.protocols.fidelity import faithful, student
from secformer.protocols.maximum import OCTET, WINDOW, Windows, masked, nothing, row_maximum
from secformer.protocols.papers import cite
from secformer.protocols.quantities import (
    EXP_SUM,
    LOG_MEAN,
    MAXIMUM,
    QUAD_SHIFT,
    QUAD_SUM,
    SCORE,
    SPREAD,
    VALUE,
    apart,
    measured,
    needs,
    positive,
)
from secformer.protocols.ranges import Range, Site, bits, roomiest, times, with_air
from secformer.protocols.reciprocal import (
    Reciprocal,
    deflation,
    reciprocal_goldschmidt,
    reciprocal_series,
    series_rounds,
)

VALUE_BITS = 1       # values, and so their weighted means, are promised below twice their measured reach
EXP_BITS = 3         # weights are kept times 2^3, so that rounding them costs little
SERIES_WIDTH = 40    # bits that weights settle to: their row sums then need no lift before the reciprocal's series
LEAST_SUM = 0.99     # least sum of a row's weights: the largest weight is 1 or more, up to rounding
RECIPROCAL_BITS = 0  # reciprocals of row sums settle at 1 or more: relative rounding below 2^-16
COARSER = 3          # bits by which a row's sum may settle coarser than the least row's
ABOVE = 0.5          # of a domain's upper end, that exp may be larger
NARROW = 3.0         # longest range of log-mean-exp, in which rows need no maximum
GRID = 2.0**16       # steps per unit of the logarithm of a number of keys
LEAST_ROW = 0.55     # a row's sum should not be less there: rounding T weights is off by about sqrt(T) 2^-18
MOST_FINER = 2       # bits that three bytes of a weight have room for there
LEAST_BOUND = 7.75   # least bound of scores: a tree's maximum is then wide enough for exp's shortest period, 32
TOLERANCE = 2.0**-5          # of a sum times its reciprocal, where a session checks it
SERIES_TOLERANCE = 2.0**-10  # the same for reciprocals by series


@cite("vaswani2017attention", "scaled dot-product attention")
@cite("luo2024secformer", "baseline softmax; exponential from one masked opening")
@faithful
@needs(VALUE, SCORE, SPREAD, MAXIMUM, EXP_SUM, LOG_MEAN)
def softmax_series(s: Session, scores: Share, values: Kept, mask: np.ndarray, at: Site) -> Share:
    """softmax(scores) @ values over real columns: (B, H, Q, D).

    4 rounds where at["log_mean"] or at["maximum"] is narrow, 8 with thresholds, 4 + 2 ceil(log2 T) with a tree (see
    `row_maximum`); one more where row sums may span a ratio above about 215, five above about 640. About 12 bytes per
    score (11 where log sums span 2.6 or less), 14 with thresholds or a tree; 8 to 11 per value. Guarded, up to two
    bytes per score and one per value more.
    1. x <- scores - m, m a public constant or a coarse row maximum              see `shifted`
    2. e <- exp(x), masked columns times 0                                       two rounds
    3. c <- e @ values; z <- row sums of e; n <- 1 / z                           one round
    4. return c n                                                                one round

    Ranges: at["value"], at["score"], at["spread"] (score minus row maximum), at["maximum"], at["exp_sum"] and
    at["log_mean"] of real columns.
    Error: a weight's is at most 3.1e-6 of the row's largest and 3.3e-5 of itself, a row's scale 1.2e-4. Measured for
    values of N(0, 1), T to 512: 3e-5 on shares. Without a maximum, rows at the low end of log sums are rounded more
    coarsely. Where log sums span 2.9, root mean squares are 4e-5 for 16 columns and 1e-4 for 512 (at most 4.2e-4).
    Takes pending scores; the result has a truncation pending.
    """
    columns = real_columns(scores, values, mask)
    x, domain, total = shifted(s, scores, columns, at, least_bound=LEAST_BOUND, windows=(OCTET, WINDOW),
                               reciprocal_rounds=series_rounds, above=HIGHEST)                   # 1
    if columns is not None:
        x = x * columns  # so that masked columns stay in exp's domain
    finer = EXP_BITS if narrow_log_mean(at) is None else rows_below(total)
    e = exp(s, x, domain, scale_bits=finer)                                                      # 2
    if not s.guarded:  # a guard may let values pass up to the end of exp's table
        e = e.promise(min(e.magnitude, bits(2.0**finer * math.exp(domain.high + ABOVE))))
    if columns is not None:
        e = e * columns
    return weighted_mean(s, e, values, times(total, 2.0**finer), at, reciprocal_series,
                         width=SERIES_WIDTH, tolerance=SERIES_TOLERANCE)                         # 3, 4


def rows_below(total: Range) -> int:
    """Bits by which weights are finer where row sums in `total` may be less than LEAST_ROW: finer weights take a byte
    more in their product with values, which then has room for all of MOST_FINER."""
    return MOST_FINER if total.low < LEAST_ROW else 0


@cite("vaswani2017attention", "scaled dot-product attention")
def shifted(
    s: Session, scores: Share, columns: np.ndarray | None, at: Site, *, least_bound: float = 0.0,
    windows: Windows = (WINDOW,), reciprocal_rounds: Callable[[Range], int] = nothing, above: float = 0.0,
    near: float | None = None,
) -> tuple[Share, Range, Range]:
    """x = scores - m; its domain over real columns; and where row sums of exp(x) lie. Softmax does not depend on m.

    Where at["log_mean"] is narrow, m is its upper end less `above`, and the logarithm of the number of keys: public.
    Else m is a coarse row maximum: see `row_maximum`, which takes the rounds that the reciprocal of a row's sum then
    needs into account. With `near`, it is always that, and less than `near` below the row's: for exponentials that are
    right near 0 alone.

    1. masked columns <- a public constant
    2. m <- coarse row maximum                    one round more where no table of exp's reaches the domain's low end
    Takes pending scores; x stays pending, and is right modulo 4 max(least_bound, largest score) or more.
    """
    score, spread, logs = measured(at, SCORE), measured(at, SPREAD), narrow_log_mean(at) if near is None else None
    if logs is not None:
        constant = logs.high - above
        keys = scores.shape[-1] if columns is None else columns.sum(axis=-1, keepdims=True)
        x = masked(scores, columns, math.floor(score.low)) - (constant + log_keys(keys))         # 1
        deepest = score.low - constant - math.log(2.0) * bits(scores.shape[-1]) - 1.0
        return x, Range(deepest, above), Range(LEAST_SUM * math.exp(logs.low - constant), math.exp(above))
    # lengths that have their power of two in common share a book of fits (see `models/run/public`)
    most = min(2.0 ** bits(scores.shape[-1]), max(1.0, measured(at, EXP_SUM).high))

    def total(delta: float) -> Range:
        return Range(LEAST_SUM, math.exp(delta) * most)

    scores, m, delta = row_maximum(s, scores, columns, at, least_bound=least_bound, windows=windows,
                                   most=HIGHEST if near is None else near,
                                   following=lambda delta: reciprocal_rounds(total(delta)))       # 1, 2
    domain = Range(max(spread.low, score.low - score.high), delta)
    if is_cut(s, domain):
        (m,) = s.lift(m)  # x will be compared in words that are longer than those that a maximum needs
    return scores - m, domain, total(delta)


def log_keys(keys: int | np.ndarray) -> np.ndarray:
    """The logarithm of a number of keys, on a grid, so that two machines have the same."""
    return np.asarray(np.round(np.log(keys) * GRID) / GRID)


def narrow_log_mean(at: Site) -> Range | None:
    """The range of log-mean-exp, where it is so narrow that its upper end can stand for every row's."""
    if LOG_MEAN.name not in at:
        return None
    logs = measured(at, LOG_MEAN)
    return logs if logs.high - logs.low <= NARROW else None


@cite("vaswani2017attention", "scaled dot-product attention")
def weighted_mean(
    s: Session, weights: Share, values: Kept, total: Range, at: Site, reciprocal: Reciprocal,
    spare_bits: int = RECIPROCAL_BITS, width: int = WORD_BITS, tolerance: float = TOLERANCE,
) -> Share:
    """weights @ values / row sums of weights, which lie in `total`, by one reciprocal per row.

    1 round beside the reciprocal's, 2 for pending weights; 8 or 9 bytes per weight, and 8 to 11 per value.
    1. c <- weights @ values;  z <- row sums of the weights
    2. return c / z
    No product wraps while |values| stays below twice the reach of at["value"] and sums below the end of `total`.
    Reciprocals settle at 2^spare_bits or more, of sums of `width` bits or more. Takes pending weights; the result has a
    truncation pending, in whole words. Raises RangeError where values or sums are so large that words do not hold
    their products.

    A guarded session checks that each sum times its reciprocal is 1, to `tolerance`, and that the means stay within
    the reach of at["value"]: 16 bytes per row more.
    """
    total_bits, scale_bits = bits(total.high), bits(total.high) + spare_bits
    # c settles as fine as the least row needs, and as coarse as it can: then the mean has few bits to drop
    down = min(total_bits, math.floor(math.log2(total.low)) + COARSER) if total.low > 0.0 else 0
    r = with_air(measured(at, VALUE))
    value_bits = promised(s.fixed, measured(at, VALUE).reach, total_bits, scale_bits, down,
                          room=apart(at, r) if s.guarded else 0)
    magnitude = max(total_bits + value_bits, down + 1)  # c has `down` bits to drop beside its own
    (weights,) = s.settle(weights, width=max(width, s.fixed.window(2 * s.fixed.frac, magnitude)))
    sums = weights.sum(-1, keepdims=True).promise(total_bits)
    with s.one_round():  # the first of a reciprocal's rounds needs no product
        context = s.matmul(weights, values, magnitude=magnitude)                                 # 1
        inverse = reciprocal(s, sums, total, scale_bits=scale_bits)                              # 2
    context = context * 2.0**-down
    products = [(context, inverse), (sums, inverse)][: 2 if s.guarded else 1]
    mean, *ones = s.mul_many(products, magnitude=[value_bits + scale_bits - down, s.fixed.whole][: len(products)],
                             whole=True)
    for one in ones:
        s.expect(one, scale_bits, tolerance, "sum")
    return s.checked(mean * 2.0 ** (down - scale_bits), r.low, r.high, "value")


def promised(fixed: FixedPoint, reach: float, total_bits: int, scale_bits: int, down: int = 0, room: int = 0) -> int:
    """The least m >= room with 2^m >= 2 reach (or less, down to reach, where words do not hold more), raised as far as
    the windows that depend on it stay as they are: those of the mean, of its product with sums and with a reciprocal.
    """
    def windows(m: int) -> tuple[int, ...]:
        frac = fixed.frac
        return (fixed.window(frac, m), fixed.window(frac, total_bits - down + m),
                fixed.window(2 * frac, total_bits + m), fixed.window(2 * frac, scale_bits - down + m))

    most = fixed.whole - max(total_bits, scale_bits - down)
    if bits(reach) > most:
        raise RangeError(f"attention's values reach {reach:g} and a row's weights sum to 2^{total_bits}, but beside "
                         f"such sums words hold only values below 2^{most}; check the range profile, or lower `frac`")
    return roomiest(min(max(room, bits(reach) + VALUE_BITS), most), windows)


@cite("li2023mpcformer", "2Quad")
@student("2Quad", quad_shift=QUAD_SHIFT)
def plain_2quad(s: Session, scores: Share, values: Kept, mask: np.ndarray, at: Site) -> Share:
    """2Quad in float64, in the twin only: p @ values / row sums of p, p = (scores + 5)^2, over real columns."""
    def weights(x: np.ndarray) -> np.ndarray:
        p = (x + QUAD_SHIFT) ** 2 * spread_out(mask)
        return np.asarray(p / p.sum(axis=-1, keepdims=True))

    return s.matmul(s.apply(weights, scores), values)


@cite("luo2024secformer", "2Quad softmax protocol")
@cite("li2023mpcformer", "2Quad")
@student("2Quad", plain=plain_2quad, quad_shift=QUAD_SHIFT)
@needs(VALUE, SCORE, QUAD_SUM)
def softmax_2quad(s: Session, scores: Share, values: Kept, mask: np.ndarray, at: Site) -> Share:
    """p @ values / row sums of p, p = (scores + 5)^2, over real columns: (B, H, Q, D).

    iterations + 3 rounds, 16 with the paper's 13; about 16 bytes per score, 11 per value.
    1. p <- (scores + 5)^2, masked columns times 0                               one round
    2. c <- p @ values; q <- row sums of p                                       two rounds, the last one with
    3. n <- 1 / q by Goldschmidt, one per row: eta = 5000, 13 iterations where at["quad_sum"] allows
    4. return c n                                                                one round

    Ranges: at["value"], at["score"]; at["quad_sum"], the row sums q. Error, relative: 3e-4 (see
    `reciprocal_goldschmidt`). Takes pending scores; the result has a truncation pending.
    """
    def reciprocal(s: Session, y: Share, domain: Range, *, scale_bits: int) -> Share:
        eta, iterations = deflation(domain)
        return reciprocal_goldschmidt(s, y, eta=eta, iterations=iterations, scale_bits=scale_bits)

    return quad_mean(s, scores, values, mask, at, reciprocal)                                    # 1 to 4


@cite("li2023mpcformer", "2Quad")
def quad_mean(
    s: Session, scores: Share, values: Kept, mask: np.ndarray, at: Site, reciprocal: Reciprocal
) -> Share:
    """p @ values / row sums of p, p = (scores + 5)^2, with the reciprocal given: 3 rounds beside the reciprocal's;
    about 16 bytes per score, 11 per value."""
    columns = real_columns(scores, values, mask)
    total = positive(at, QUAD_SUM)
    if total.low == 0.0:
        raise RangeError("a 2Quad row must not sum to 0: this checkpoint was not trained for 2Quad; use FAITHFUL")
    score = with_air(measured(at, SCORE))
    largest = (score.reach + QUAD_SHIFT) ** 2
    if columns is not None:
        scores = within(scores, columns, score)
    shifted = s.checked(scores + QUAD_SHIFT, score.low + QUAD_SHIFT, score.high + QUAD_SHIFT, "score")
    p = s.square(shifted, magnitude=bits(min(total.high, largest)))
    if columns is not None:
        p = p * columns
    return weighted_mean(s, p, values, total, at, reciprocal, spare_bits=1)


def within(scores: Share, columns: np.ndarray, r: Range) -> Share:
    """Scores whose masked columns are put in the middle of the range, where nothing leaves it. Local."""
    return scores * columns + (1 - columns) * round((r.low + r.high) / 2.0)


def softmax_exact(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """softmax over real columns in float64, the reference."""
    x = np.where(spread_out(mask), scores, -np.inf)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def spread_out(mask: np.ndarray) -> np.ndarray:
    """A mask with the four axes of scores: (B, T) as (B, 1, 1, T), one of four axes as it is."""
    return mask if mask.ndim == 4 else mask[:, None, None, :]


def real_columns(scores: Share, values: Kept, mask: np.ndarray) -> np.ndarray | None:
    """The mask as integers that broadcast to the scores, or None where every column is real. Raises ShapeError for
    shapes that do not fit, and for a mask that leaves a row without a real column."""
    mask = np.asarray(mask, dtype=bool)
    fits = scores.ndim == values.ndim == 4 and (*scores.shape[:2], scores.shape[-1]) == values.shape[:3]
    if mask.ndim == 4:
        fits = fits and all(here in (1, there) for here, there in zip(mask.shape, scores.shape, strict=True))
    else:
        fits = fits and mask.shape == (scores.shape[0], scores.shape[-1])
    if not fits:
        raise ShapeError(f"softmax takes scores (B, H, Q, T), values (B, H, T, D) and a mask (B, T), or one of four "
                         f"axes that broadcasts to the scores, got {scores.shape}, {values.shape} and {mask.shape}")
    if not mask.any(axis=-1).all():
        raise ShapeError("every row of scores needs at least one real column: a text at least one real token; got a "
                         "mask with an empty row")
    return None if mask.all() else spread_out(mask).astype(np.int64)
