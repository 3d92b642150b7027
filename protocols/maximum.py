"""The row maximum of attention's scores, or a little less, by thresholds or by a tree of comparisons, whichever is
cheaper. Softmax does not depend on how much is subtracted from a row.

T keys per row. Scores (..., T); the maximum (..., 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from secformer.mpc.dealer.thresholds import segments_of
from secformer.mpc.functions import HIGHEST
from secformer.mpc.kernels.words import whole_bytes
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.mpc.thresholding import MOST_THRESHOLDS, window_of
from secformer.protocols.exp import table
from secformer.protocols.papers import cite
from secformer.protocols.quantities import MAXIMUM, SCORE, SPREAD, measured
from secformer.protocols.ranges import Range, Site, bits

ROUND = 125_000      # bytes, of both parties together, that a round is worth: 0.5 ms of 1 Gbit/s in each direction
HEADS = 12           # of a text, that a round's worth is reckoned with
GRID = 0.25          # thresholds are spaced by multiples of this, so that layers share fits that depend on the spacing
LEAST_DELTA = 0.5    # a maximum need not be closer than this
FINEST = 4           # most fractional bits of scores that are compared with thresholds
OPENINGS = 8, 10     # bits to try in order: one byte, two bytes
BIT_WIDTH = 32       # bits in which the bits of rows are right: at 4 fractional bits they hold maxima below 2^26
WIDE_MAXIMUM = 10    # bits above the point of a tree's maximum in guarded sessions: scores are known as far below it
MOST_PRECISION = 6   # most fractional bits of a tree's comparison
Windows = Sequence[tuple[int, int]]  # to try in order: bits of a comparison, and the least fractional bits among them
Following = Callable[[float], int]           # rounds of what comes next, given delta
WINDOW = 14, 3       # two bytes, two small tables
OCTET = 8, 2         # one byte, one table: for scores below 15


class Steps(NamedTuple):
    """Thresholds start + k step for k = 1..number, for scores that are kept to `precision` fractional bits and opened
    in `window` bits."""

    start: float
    step: float
    number: int
    precision: int
    window: int

    @property
    def delta(self) -> float:
        """A maximum in its range lies less than this above what the thresholds say: dropped bits may hide a threshold
        that is reached by less than a unit."""
        return self.step + (2.0**-self.precision if self.number else 0.0)

    @property
    def thresholds(self) -> list[float]:
        return [self.start + k * self.step for k in range(1, self.number + 1)]


class Price(NamedTuple):
    """What a row maximum costs: rounds, and bytes per score that both parties together send."""

    rounds: int
    sent: float

    def total(self, columns: int, more: int = 0) -> float:
        """Bytes for a text of so many tokens, rounds included: these and `more`."""
        return self.sent * HEADS * columns**2 + ROUND * (self.rounds + more)


class Below(NamedTuple):
    """scores, masked columns at a public low constant; m, with 0 <= row maximum - m < delta."""

    scores: Share
    maximum: Share
    delta: float


def nothing(chosen: object) -> int:
    """What follows takes as many rounds whatever is chosen."""
    return 0


@cite("knott2021crypten", "softmax: the row maximum is subtracted first, by a tree of comparisons")
def row_maximum(
    s: Session, scores: Share, columns: np.ndarray | None, at: Site, *, least_bound: float = 0.0,
    windows: Windows = (WINDOW,), most: float = HIGHEST, following: Following = nothing,
) -> Below:
    """The maximum of each row, or less by less than a public delta, which is at most `most`.

    By thresholds: 4 rounds for any T, or none where the measured range of maxima is shorter than `most`; about 2 bytes
    per score and party. By a tree: 2 ceil(log2 T) rounds. See `by_thresholds` and `by_tree`; the cheaper is taken, with
    the rounds that `following` says what comes next takes for a delta. A site that has no range of maxima takes the
    tree.

    1. masked columns <- a public constant below all thresholds
    2. m <- coarse maximum

    Ranges: at["score"], at["spread"], and at["maximum"] for thresholds. `least_bound` and `windows` are the tree's: see
    `coarsest`. Takes pending scores. columns: 0 where one is masked, None where none is.
    """
    # lengths that have their power of two in common take the same way, and so the same fits later
    score, keys = measured(at, SCORE), 1 << bits(scores.shape[-1])
    bound = max(least_bound, score.reach + 1.0)
    precision = coarsest(bound, windows)
    above = 2.0 * 2.0**-precision  # what dropped bits take off a tree's maximum
    found = None
    if MAXIMUM.name in at:
        most = min(most, deepest(measured(at, SPREAD)))
        found = cheapest(keys, measured(at, MAXIMUM), score, most, following)
    tree = by_tree(keys, bound, windows).total(keys, following(above))
    if found is not None and by_thresholds(keys, found).total(keys, following(found.delta)) < tree:
        scores = masked(scores, columns, constant_below(score, found))                               # 1
        return Below(scores, coarse_maximum(s, scores, found, score), found.delta)                   # 2
    scores = masked(scores, columns, math.floor(score.low))                                          # 1
    m = s.maximum(scores, -1, bound=bound, precision=precision,
                  width=precision + WIDE_MAXIMUM if s.guarded else 0)                                # 2
    return Below(scores, m, above)


def masked(scores: Share, columns: np.ndarray | None, constant: int) -> Share:
    """Scores whose masked columns hold a public constant. Local."""
    return scores if columns is None else scores * columns + (1 - columns) * constant


# ---- by thresholds --------------------------------------------------------------------------------------------------


@cite("luo2024secformer", "one masked opening, here of scores that are compared with public thresholds")
def coarse_maximum(s: Session, scores: Share, found: Steps, score: Range) -> Share:
    """m = start + step (how many thresholds the row's maximum reaches): 0 <= maximum - m < delta where the maximum lies
    from `start` to start + (number + 1) step.   4 rounds, or none without thresholds.

    A maximum below `start` gives m = start, above the maximum by as much as is missing; one above the last step gives
    the last threshold, too far below. Scores outside of `score` may take any of the values that m can have. In all of
    these, what softmax goes on with leaves the range of score - m or of the row's sum, where a guard sees it, or else
    the result is right: softmax is the same for any m.
    Takes pending scores in `score`, or at `constant_below`.
    """
    if not found.number:
        return s.public(found.start, (*scores.shape[:-1], 1))
    low = min(score.low, float(constant_below(score, found)))
    reached = s.reached(scores, found.thresholds, low=low, high=score.high, precision=found.precision,
                        width=BIT_WIDTH, known=True)
    total = reached[0]
    for bit in reached[1:]:
        total = total + bit
    unit = 2.0**-found.precision
    m = (total * round(found.step / unit) + round(found.start / unit)) * unit  # in whole units, so that none is rounded
    return m.promise(bits(max(abs(found.start), abs(found.thresholds[-1]))) + 1)


def constant_below(score: Range, found: Steps) -> int:
    """A whole number for masked columns: no score of the range is lower, and no threshold is reached by it."""
    return math.floor(min([score.low, *(c - 2.0**-found.precision for c in found.thresholds)]))


def cheapest(columns: int, maximum: Range, score: Range, most: float, following: Following = nothing) -> Steps | None:
    """The steps that cost least with what follows: a smaller delta takes more thresholds, and may save rounds later."""
    deltas: list[float] = np.arange(most, GRID, -GRID).tolist()
    found = [each for delta in deltas if (each := steps(maximum, score, delta)) is not None]
    return min(found, key=lambda each: by_thresholds(columns, each).total(columns, following(each.delta)), default=None)


@lru_cache(maxsize=4096)  # asked by every layer of every step of a text
def steps(maximum: Range, score: Range, most: float = HIGHEST) -> Steps | None:
    """The fewest thresholds that tell maxima in their range to less than `most`, for scores in theirs; the shortest
    opening goes first. None where no opening suffices, or more thresholds would be needed than a verb takes."""
    for window in OPENINGS:
        found = [steps for steps in _steps(maximum, score, most) if steps.window <= window]
        if found:
            return min(found, key=lambda steps: (steps.number, steps.delta))
    return None


def _steps(maximum: Range, score: Range, most: float) -> Iterator[Steps]:
    """One way for each precision."""
    for precision in range(1, FINEST + 1):
        unit = 2.0**-precision
        start = math.floor(maximum.low / unit) * unit
        grid, length = max(GRID, unit), maximum.high - start
        if length < most:
            yield Steps(start, min(most, (length // GRID + 1.0) * GRID), 0, precision, 0)
            continue
        longest = math.floor((most - unit) / grid) * grid
        if longest <= 0.0:
            continue
        number = math.ceil(length / longest) - 1
        step = math.ceil(length / (number + 1) / grid) * grid  # as short as that many allow
        found = Steps(start, step, number, precision, 0)
        if number <= MOST_THRESHOLDS:
            units = [round(c / unit) for c in found.thresholds]
            low = min(score.low, float(constant_below(score, found)))
            yield found._replace(window=window_of(low, score.high, units, precision, True))


@lru_cache(maxsize=1024)
def deepest(spread: Range) -> float:
    """How far above a maximum's place the domain of exp may end without a larger table of exp than is needed anyway."""
    def period(delta: float) -> int | None:
        found = table(spread.low, delta)
        return None if found is None else found.period_bits

    least = period(LEAST_DELTA)
    candidates: list[float] = np.arange(HIGHEST, LEAST_DELTA - GRID, -GRID).tolist()
    return next(c for c in candidates if period(c) == least)


def by_thresholds(columns: int, found: Steps) -> Price:
    """Four rounds. Per score and party, an opening of `window` bits in whole bytes, and one bit per threshold; per row,
    for each threshold and segment (one up to 255 scores) the bytes that hold a count, and one bit, in whole bytes for
    the row. Nothing without thresholds."""
    if not found.number:
        return Price(0, 0.0)
    segments, length = segments_of(columns, found.number)
    row = found.number * segments * whole_bytes(length.bit_length()) + whole_bytes(found.number * segments)
    return Price(4, 2.0 * (whole_bytes(found.window) + found.number / 8.0 + row / columns))


# ---- by a tree ------------------------------------------------------------------------------------------------------


def coarsest(bound: float, windows: Windows) -> int:
    """Fractional bits of comparisons of differences below 2 bound: as many as the window leaves room for, 6 at most.

    The first window that leaves room for its least fractional bits is taken; where none does, the least of the last.
    """
    for window, least in windows:
        for precision in range(MOST_PRECISION, least - 1, -1):
            if _tree_window(bound, precision) <= window:
                return precision
    return windows[-1][1]


def by_tree(columns: int, bound: float, windows: Windows) -> Price:
    """2 ceil(log2 T) rounds. T - 1 comparisons per row; of each, both parties send a window, and 2 n - 1 bits for its n
    blocks of at most 8 bits, in whole bytes."""
    window = _tree_window(bound, coarsest(bound, windows))
    outcome = 2 * -(-(window - 1) // 8) - 1
    each = whole_bytes(window) + whole_bytes(outcome)
    return Price(2 * (columns - 1).bit_length(), 2.0 * each * (columns - 1) / columns)


def _tree_window(bound: float, precision: int) -> int:
    return precision + 1 + bits(2.0 * bound + 2.0 ** (1 - precision))
