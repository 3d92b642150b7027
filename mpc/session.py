"""The arithmetic black box: the verbs that protocols are written in.

Every session runs the same protocol code: one party of two (`sessions/secure`), the float64 twin (`sessions/plain`),
the plan recorder (`sessions/recorder`), a session on tensors for training. This base decides what all of them must
agree on: fractional bits, widths, when a pending truncation is due, and which operands share a round (the rules are in
`scales`, local operators in `operators`, products in `products`, a verb each in `thresholding` and `unit_rows`). A
subclass supplies the primitives (`primitives`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, NoReturn

import numpy as np

from secformer.mpc.caches import Cache
from secformer.mpc.errors import RangeError, SettingsError, ShapeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.functions import LEAST_BITS, Exponential, Opening, Series, opening_bits
from secformer.mpc.guarding import BEYOND
from secformer.mpc.guards import RING, TIGHT, Check, part
from secformer.mpc.ops.book import Agree, as_fitted
from secformer.mpc.products import Products
from secformer.mpc.ring import WORD_BITS
from secformer.mpc.scales import comparison_window, positive
from secformer.mpc.shares import Share, Weight
from secformer.mpc.thresholding import Thresholding
from secformer.mpc.unit_rows import UnitRows

CLIENT = "client"
ROOM = 0.5      # of a comparison's reach, that a guarded one leaves to notice values that are larger
AIR = 1.25      # the same, in parts of the guard
ONE_PART = 1.0 + 2.0**-7  # the same, and no more than needed
BIT_WIDTH = 8   # of narrow bits: one byte, the least that an opening takes


class Session(UnitRows, Products, Thresholding):
    """The verbs: they cost rounds and bytes, and each one's docstring states its price. Local operators are free."""

    numbers: ClassVar[type | None] = None  # the array type of plain values, in sessions that have them

    def __init__(self, fixed: FixedPoint | None = None):
        super().__init__()
        self.fixed = fixed or FixedPoint()
        self.weights = 0  # opened so far; numbers them, the same at both parties
        self.forgotten = 0
        self._agree: Agree = as_fitted  # which numbers the parties use for a fitted series

    # ---- bringing values in and out -------------------------------------------------------------------------------

    def share(self, x: np.ndarray | float | None, owner: int, *, shape: tuple[int, ...] | None = None) -> Share:
        """Party `owner` shares its array; the other party passes None and the public `shape`.

        Price: half a round (one message), 64 bits per element.
        """
        if owner not in (0, 1):
            raise SettingsError(f"a value is shared by party 0 or party 1, got owner {owner!r}")
        if x is None and shape is None:
            raise ShapeError("the party that does not own the value must state its public shape: pass `shape`")
        shape = shape if shape is not None else np.asarray(x).shape
        return self._wrap(self._share(x, owner, tuple(shape)), self.fixed.frac)

    def accept(self, data: Any, *, frac: int | None = None, width: int = WORD_BITS, operand: bool = False) -> Share:
        """Wraps what a client or a model owner shared beforehand: this party's words (the twin: the float64 array).

        `operand` keeps the words in the type in which they came, without a copy. Such a share may be sliced and then
        multiplied by weights; no other verb takes it.
        """
        taken = self._operand(data) if operand else self._accept(data)
        return self._wrap(taken, self.fixed.frac if frac is None else frac, width)

    def open_weight(self, data: Any, *, frac: int | None = None, width: int = WORD_BITS) -> Weight:
        """Makes a (K, N) matrix, or a stack of them (..., K, N), shared beforehand, a standing right operand of
        `matmul`: opens it masked, once.

        Price: one round at load, `width` bits per element; none at request time.
        """
        shape = np.shape(data)
        if len(shape) < 2:
            raise ShapeError(f"a weight must be a (K, N) matrix, or a stack of matrices, got {tuple(shape)}")
        index, self.weights = self.weights, self.weights + 1
        kept = self._open_weight(data, index, width)
        return Weight(self, index, shape, self.fixed.frac if frac is None else frac, width, kept)

    def held(self, weight: Weight) -> Share:
        """A weight as a share, for what is no product with it. Local."""
        self._own(weight)
        return Share(self, self._held(weight), weight.frac, weight.width, self.fixed.magnitude)

    def cache(self, number: int, row: tuple[int, int], base: Weight | None = None) -> Cache:
        """A cache for rows (G, D), which begins with those of a weight (P, G D), if one is given. No other cache of the
        run's caches has its number (see `mpc/caches`). Price: nothing."""
        cache = Cache(self, number, row, base)
        cache.data = self._cache(row, base)
        return cache

    def reveal(self, x: Share, to: int | str) -> Any:
        """Reveals a result, as whole words with the session's fractional bits, to party 0, party 1 or CLIENT.

        Returns float64 to the one who learns it and None to the other; for CLIENT each party returns the words that
        it hands to the client. Price: half a round (one message), 64 bits per element; nothing for CLIENT.
        """
        if to not in (0, 1, CLIENT):
            raise SettingsError(f"results are revealed to 0, 1 or CLIENT, got {to!r}")
        (x,) = self._settled([x])
        return self._reveal(self._aligned(x, self.fixed.frac), to)

    # ---- plain values, for references and probes ------------------------------------------------------------------

    def values(self, x: Share) -> Any:
        """The plain values of x. Raises SettingsError where nobody has them: in secure sessions and in the recorder."""
        self._refuse_plain(np.ndarray)

    def apply(self, fn: Callable[[Any], Any], x: Share, *, on: type = np.ndarray) -> Share:
        """An exact function of plain values, for references; `on` is the array type that it takes.

        Raises SettingsError in a session whose values are of another type, or that has none.
        """
        if on is not self.numbers:
            self._refuse_plain(on)
        return self._wrap(fn(self.values(x)), self.fixed.frac)

    def _refuse_plain(self, on: type) -> NoReturn:
        home = "in the float64 twin" if on is np.ndarray else f"in a session on values of type {on.__name__}"
        raise SettingsError(f"exact functions need plain numbers and run {home} only; this is a {type(self).__name__}. "
                            f"On shares, use a recipe of protocols, such as 'faithful'")

    # ---- pending truncations --------------------------------------------------------------------------------------

    def settle(self, *xs: Share, width: int = WORD_BITS) -> tuple[Share, ...]:
        """Runs the pending truncations of all xs in one round. Verbs do this by themselves: a protocol calls it only
        where one value is about to be used by several verbs.

        `width` says how wide those are; narrower words take less material.
        Price: one round, window(session's frac, magnitude) bits per element that has a truncation pending (4 bytes
        where nothing smaller is promised), else nothing.
        """
        return tuple(self._settled(xs, [width if x.frac > self.fixed.frac else 0 for x in xs]))

    def lift(self, *xs: Share) -> tuple[Share, ...]:
        """As `settle`, and brings narrow shares (32-bit products, coarse maxima) to whole words in the same round."""
        return tuple(self._settled(xs))

    def due(self, x: Share) -> bool:
        """Whether x has a truncation pending, or is narrow."""
        return x.frac > self.fixed.frac or x.width < WORD_BITS

    # ---- functions of one opening ---------------------------------------------------------------------------------

    def series(self, x: Share, functions: Sequence[Series]) -> list[Share]:
        """f(x) for every Fourier series f, all of one period, from one opening of x mod that period.

        Price: one round, period + fractional bits rounded to whole bytes (3 bytes per element for periods to 64),
        also when x has a truncation pending: low bits are dropped locally, which is exact modulo the period. So are
        those that are finer than the result of a linear term.
        """
        if len({(f.period_bits, f.mask_frac, f.public_frac, f.domain) for f in functions}) != 1:
            raise ShapeError("the series of one opening must have one period, one domain and one precision: scale x by "
                             "public factors")
        self._own(x)
        functions = [self._agree(f) for f in functions]
        period, domain = functions[0].period_bits, functions[0].domain
        finest = min((f.finest for f in functions if f.linear), default=x.frac)
        if x.frac > max(finest, self.fixed.frac):
            x = self._without(x, x.frac - finest)
        x = self._modulo(x, period, *(f.needed_width(self.fixed, x.frac) for f in functions))
        width = max(self._window(f) for f in functions)
        opening, check = self._opening(x, period, domain, "input")
        found = self._given(partial(self._series, x, functions, opening, width, check), [x.shape] * len(functions))
        return [self._evaluated(data, f) for data, f in zip(found, functions, strict=True)]

    def exponential(self, x: Share, function: Exponential, *, cut: bool = False, high: float | None = None) -> Share:
        """e^x on the function's domain, from one opening and a table that the dealer shares.

        `cut` says that x was cut near the domain's low end, and may lie at the very cut.
        `high` says where values end, if that is a guard's part or more below the domain's end: then a guard lets no
        value pass that the function is wrong for.
        Error: 2.1e-6, and relative 2^-19 and a pending x's rounding, at most 2^-15. Price: as `series`; stays pending.
        """
        self._own(x)
        x = self._modulo(x, function.period_bits)
        end, above, times = (function.high, AIR, RING) if high is None else (high, ONE_PART, TIGHT)
        opening, check = self._opening(x, function.period_bits, (function.low, end), "spread",
                                       below=AIR if cut else 0.0, above=above, times=times)
        data = self._exponential(x, function, opening, check)
        return self._evaluated(data, function)

    def less(self, x: Share, thresholds: Sequence[float], *, bound: float, precision: int | None = None,
             magnitude: int | None = None, known: bool = False, narrow: bool = False) -> list[Share]:
        """[x < c] for each public threshold c, as shares of 0 or 1 (no fractional bits), for |x| < bound.

        `precision` keeps that many fractional bits of x: the result may be wrong only where |x - c| <= 2^-precision.
        `magnitude` bounds products with settled values that the bits go into, as in `mul`: the width of the shares.
        `known` says that |x| < bound is checked elsewhere: a guard has nothing to add.
        `narrow` makes the shares right modulo 2^8 only: products lift them, and open one byte of each.
        Price: three rounds; per element its window (precision + bits of bound + 1), 2n - 1 bits per threshold for n
        blocks of at most 8 bits, and one bit for each threshold together; each of these in whole bytes.
        """
        if not thresholds or not all(math.isfinite(c) for c in thresholds):
            raise RangeError(f"a comparison needs one or more finite thresholds, got {list(thresholds)}")
        exact = x.frac
        x, window = self._windowed(x, positive(bound) + max(abs(float(c)) for c in thresholds), precision,
                                   0.0 if known else ROOM)
        # a dropped share sum lies up to two units below x, so the threshold goes down; an exact one goes up
        nearest = math.ceil if x.frac == exact else math.floor
        exactly = [(float(c), nearest(c * 2.0**x.frac)) for c in thresholds]
        width = self.fixed.window(2 * self.fixed.frac, self.fixed.magnitude if magnitude is None else magnitude)
        width = BIT_WIDTH if narrow else width
        check = None if known else self._bounded(x, bound, window)
        return [Share(self, bit, 0, width, 1, held=True) for bit in self._less(x, exactly, window, width, check)]

    def relu(self, x: Share, *, bound: float, precision: int | None = None) -> Share:
        """max(x, 0) for |x| < bound. Price: two rounds, otherwise as `less` with one threshold."""
        x, window = self._windowed(x, positive(bound), precision, ROOM)
        return self._rectified(x, window, WORD_BITS, self._bounded(x, bound, window))

    def maximum(self, x: Share, axis: int, *, bound: float, precision: int | None = None, width: int = 0) -> Share:
        """Maximum along an axis, which is kept with length 1, for |x| < bound. The result is right modulo its width.

        With `precision`, low bits are dropped first: the result lies less than 2 units of 2^-precision below the
        maximum and never above it, for a quarter of the bytes, where that suffices (softmax is shift invariant).
        `width` makes the result at least so wide, which takes more material and no more bytes.
        Price: 2 ceil(log2 n) rounds; n - 1 comparisons per row.
        """
        x, window = self._windowed(x, 2 * positive(bound), precision)  # differences reach twice the bound
        x = x.promise(min(x.magnitude, window - 2 - x.frac))
        axis = axis % x.ndim
        while (n := x.shape[axis]) > 1:
            half = n // 2
            lower, upper, odd = (x[_along(axis, s)] for s in (slice(half), slice(half, 2 * half), slice(2 * half, n)))
            larger = self.add(upper, self._rectified(self.add(lower, self.negate(upper)), window, max(window, width)))
            x = self.concatenate([larger, odd], axis) if n % 2 else larger
        return x

    def select(self, bit: Share, x: Share, y: Share) -> Share:
        """x where bit is 1, y where it is 0. Price: as `mul`."""
        return self.add(y, self.mul(bit, self.add(x, self.negate(y))))

    # ---- one run and what it agrees on ----------------------------------------------------------------------------

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names a part of the program in costs, errors and checks."""
        self._path.append(name)
        try:
            yield
        finally:
            self._path.pop()

    @contextmanager
    def agreeing(self, book: Agree) -> Iterator[None]:
        """Inside, the numbers of every fitted series are those that the book gives (see `ops/book`)."""
        before, self._agree = self._agree, book
        try:
            yield
        finally:
            self._agree = before

    def forget_weights(self, beyond: int = 0) -> None:
        """Forgets every weight numbered `beyond` or higher: the next weight that is opened takes that number."""
        self.forgotten += max(0, self.weights - beyond)
        self.weights = beyond

    @contextmanager
    def taking_back(self, *others: Session) -> Iterator[None]:
        """If the block fails, forgets the weights that it opened, in this session and in the others."""
        before = self.weights
        try:
            yield
        except BaseException:
            for s in (self, *others):
                s.forget_weights(before)
            raise

    # ---- bookkeeping ----------------------------------------------------------------------------------------------

    def _window(self, function: Series | Exponential) -> int:
        """Bits that hold a function's result."""
        return self.fixed.window(function.frac, function.magnitude)

    def _evaluated(self, data: Any, function: Series | Exponential) -> Share:
        """The share that an evaluation makes."""
        return Share(self, data, function.frac, self._window(function), function.magnitude)

    def _rectified(self, x: Share, window: int, width: int, check: Check | None = None) -> Share:
        return Share(self, self._relu(x, window, width, check), x.frac, width, x.magnitude)

    def _opening(self, x: Share, period_bits: int, domain: tuple[float, float] | None, what: str,
                 below: float = 0.0, above: float = 0.0, times: float = RING) -> tuple[Opening, Check | None]:
        """How x is opened modulo a period, and what it is checked for: with a guard, bits above the period are opened
        where they cost nothing, so that values far outside are noticed too. With `below` and `above`, in parts of the
        guard, values up to the domain's very end pass for certain, and values a little beyond may pass."""
        if not self.guarded or domain is None:
            return opening_bits(period_bits, x.frac), None
        low, high = domain
        opening = opening_bits(period_bits, x.frac, x.width - x.frac - period_bits)
        each = part(high - low, opening.keep, opening.bits, times)
        low, high = low - below * each, high + above * each
        return opening, self._check(x, self._interval(low, high, what), opening.keep, opening.bits, times=times)

    def _bounded(self, x: Share, bound: float, window: int) -> Check | None:
        """The check of a comparison of |x| < bound: values up to the bound pass for certain, and a little above may."""
        reach = bound * (1.0 + 2.0 * BEYOND)
        return self._check(x, self._interval(-reach, reach, "input"), x.frac, window)

    def _modulo(self, x: Share, period_bits: int, *widths: int) -> Share:
        """x as an opening modulo 2^period_bits takes it: wide enough for that (and for `widths`), and for a turn."""
        if x.width < max(x.frac + period_bits, *widths, 0):
            (x,) = self._settled([x])
        return self._aligned(x, max(x.frac, LEAST_BITS - period_bits))

    def _windowed(self, x: Share, reach: float, precision: int | None, room: float = 0.0) -> tuple[Share, int]:
        """Drops fractional bits locally down to `precision` (default: the session's), and the window that then holds
        |x| < reach, and in a guarded session `room` times the reach more, so that larger values can be noticed.
        Dropping bits of both shares is exact mod 2^(width - dropped) up to one unit in the last place."""
        self._own(x)
        dropped, window = comparison_window(x, reach, self.fixed.frac if precision is None else precision,
                                            room if self.guarded else 0.0)
        return self._without(x, dropped) if dropped else x, window

    def _without(self, x: Share, bits: int) -> Share:
        """x without its lowest bits, up to two units below it."""
        return Share(self, self._drop(x.data, bits), x.frac - bits, x.width - bits, x.magnitude)


def _along(axis: int, index: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, index)
