"""The arithmetic black box: the verbs that protocols are written in.

Three sessions run the same protocol code: `SecureSession` (one party of two), `PlainSession` (the float64 twin) and
`PlanRecorder` (shapes only). This base decides what all three must agree on: fractional bits, widths, when a pending
truncation is due, and which operands share a round. A subclass supplies the primitives, named with an underscore.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from secformer.mpc.errors import RangeError, SettingsError, ShapeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.ops.book import Agree, as_fitted
from secformer.mpc.ops.exponential import Exponential
from secformer.mpc.ops.series import LEAST_BITS, Series, opening_bits
from secformer.mpc.ring import WORD_BITS
from secformer.mpc.scales import Truncation
from secformer.mpc.shares import Public, Share, Weight

CLIENT = "client"
Pair = tuple[Share, "Share | Weight"]
Threshold = tuple[float, int]  # its value, and in units of the compared share's last place


class Session(ABC):
    """Local operators are free; verbs cost rounds and bytes (each verb's docstring states its price)."""

    def __init__(self, fixed: FixedPoint | None = None):
        self.fixed = fixed or FixedPoint()
        self.weights = 0  # weights so far; numbers them, the same at both parties
        self.agree: Agree = as_fitted  # which numbers the parties use for a fitted series

    # ---- bringing values in and out -------------------------------------------------------------------------------

    def share(self, x: np.ndarray | float | None, owner: int, *, shape: tuple[int, ...] | None = None) -> Share:
        """Party `owner` shares its array; the other party passes None and the public `shape`.

        Price: half a round (one message), 64 bits an element.
        """
        if owner not in (0, 1):
            raise SettingsError(f"a value is shared by party 0 or party 1, got owner {owner!r}")
        if x is None and shape is None:
            raise ShapeError("the party that does not own the value must say its public shape")
        shape = shape if shape is not None else np.asarray(x).shape
        return self._wrap(self._share(x, owner, tuple(shape)), self.fixed.frac)

    def accept(self, data: Any, *, frac: int | None = None, width: int = WORD_BITS) -> Share:
        """Wraps what a client or a model owner shared beforehand: this party's words (the twin: the float64 array)."""
        return self._wrap(self._accept(data), self.fixed.frac if frac is None else frac, width)

    def public(self, x: Public, shape: tuple[int, ...] | None = None) -> Share:
        """A public constant as a share. Local."""
        x = np.asarray(x, dtype=np.float64)
        return self._wrap(self._public(x if shape is None else np.broadcast_to(x, shape), self.fixed.frac),
                          self.fixed.frac)

    @abstractmethod
    def open_weight(self, data: Any, *, frac: int | None = None, width: int = WORD_BITS) -> Weight:
        """Makes a (K, N) matrix, shared beforehand, a standing right operand of `matmul`: opens it masked, once.

        Price: one round at load, `width` bits an element; none at request time.
        """

    def reveal(self, x: Share, to: int | str) -> Any:
        """Reveals a result, as whole words with the session's fractional bits, to party 0, party 1 or CLIENT.

        Returns float64 to the one who learns it and None to the other; for CLIENT each party returns the words that
        it hands to the client. Price: half a round (one message), 64 bits an element; nothing for CLIENT.
        """
        if to not in (0, 1, CLIENT):
            raise SettingsError(f"results are revealed to 0, 1 or CLIENT, got {to!r}")
        (x,) = self._settled([x])
        return self._reveal(self._aligned(x, self.fixed.frac), to)

    # ---- local ----------------------------------------------------------------------------------------------------

    def add(self, x: Share, y: Share | Public) -> Share:
        """x + y at the finer of the two scales. Exact: aligning shifts left, which also widens."""
        if isinstance(y, Share):
            self._own(x, y)
            frac = max(x.frac, y.frac)
            a, b = self._aligned(x, frac), self._aligned(y, frac)
            return Share(self, self._add(a.data, b.data), frac, min(a.width, b.width), max(x.magnitude, y.magnitude))
        y = np.asarray(y)
        frac = x.frac if y.dtype.kind in "biu" and x.frac >= 0 else max(x.frac, self.fixed.frac)
        a = self._aligned(x, frac)
        return a.like(self._add(a.data, self._public(np.asarray(y, dtype=np.float64), frac)))

    def negate(self, x: Share) -> Share:
        self._own(x)
        return x.like(self._negate(x.data))

    def scale(self, x: Share, c: Public) -> Share:
        """x times public c. Integers scale exactly; a power of two only moves the point; any other factor adds up to
        `frac` fractional bits, and settles x first (the engine truncates) where no room is left for them."""
        self._own(x)
        c = np.asarray(c)
        if c.dtype.kind in "biu":
            return x.like(self._scale(x.data, c.astype(np.float64), 0))
        top = float(np.abs(c).max(initial=0.0))
        if not math.isfinite(top):
            raise RangeError("a public factor must be finite; check the constants given")
        if top == 0.0:
            return x.like(self._scale(x.data, np.zeros_like(c), 0))
        mantissa, exponent = math.frexp(top)
        frac, magnitude = x.frac - exponent + 1, max(1, x.magnitude + exponent - 1)
        if c.ndim == 0 and mantissa == 0.5 and frac + magnitude + 2 <= WORD_BITS:
            moved = Share(self, self._point(x.data, exponent - 1), frac, x.width, magnitude)
            return moved if c > 0 else self.negate(moved)
        magnitude = x.magnitude + max(0, exponent)
        bits = min(self.fixed.frac - exponent, WORD_BITS - 2 - magnitude - self.fixed.frac)
        if x.width - x.frac - bits < magnitude + 2:
            (x,) = self._settled([x])
        return Share(self, self._scale(x.data, c.astype(np.float64), bits), x.frac + bits, x.width, magnitude)

    def sum(self, x: Share, axis: int, keepdims: bool = False) -> Share:
        self._own(x)
        return x.like(self._sum(x.data, axis, keepdims))

    def concatenate(self, xs: Sequence[Share], axis: int = 0) -> Share:
        self._own(*xs)
        frac = max(x.frac for x in xs)
        parts = [self._aligned(x, frac) for x in xs]
        return Share(self, self._concatenate([p.data for p in parts], axis), frac,
                     min(p.width for p in parts), max(p.magnitude for p in parts))

    def broadcast_to(self, x: Share, shape: tuple[int, ...]) -> Share:
        return x.like(self._broadcast(x.data, shape))

    # ---- products -------------------------------------------------------------------------------------------------

    def settle(self, *xs: Share, width: int = WORD_BITS) -> tuple[Share, ...]:
        """Runs the pending truncations of all xs in one round. Verbs do this by themselves: a protocol calls it only
        where one value is about to be used by several verbs.

        `width` says how wide those are; narrower words take less material.
        Price: one round, window(session's frac, magnitude) bits for each element that has a truncation pending (4 bytes
        where nothing smaller is promised), else nothing.
        """
        return tuple(self._settled(xs, [width if x.frac > self.fixed.frac else 0 for x in xs]))

    def lift(self, *xs: Share) -> tuple[Share, ...]:
        """As `settle`, and brings narrow shares (32-bit products, coarse maxima) to whole words in the same round."""
        return tuple(self._settled(xs))

    def mul(self, x: Share, y: Share, *, magnitude: int | None = None) -> Share:
        """Element-wise product, broadcasting. `magnitude` bounds the result and what is summed from it.

        Price: one round, window(frac, magnitude) bits for each element of x and of y; a round more where an operand
        has a truncation pending.
        """
        return self.mul_many([(x, y)], magnitude=magnitude)[0]

    def square(self, x: Share, *, magnitude: int | None = None) -> Share:
        """x * x. Price: as `mul`, for x alone."""
        return self.mul_many([(x, x)], magnitude=magnitude)[0]

    def mul_many(self, pairs: Sequence[Pair], *, magnitude: int | None = None) -> list[Share]:
        """Several products in one round. A pair (x, x), the very same share twice, costs one opening."""
        return self._products(pairs, magnitude, matmul=False)

    def matmul(self, x: Share, y: Share | Weight, *, magnitude: int | None = None) -> Share:
        """x @ y over the last two axes; batch axes must be equal. With a Weight, x is (N, K) and y is not opened.

        Price: one round, window bits for each element of x and, unless it is a Weight, of y.
        """
        return self.matmul_many([(x, y)], magnitude=magnitude)[0]

    def matmul_many(self, pairs: Sequence[Pair], *, magnitude: int | None = None) -> list[Share]:
        """Several matrix products in one round."""
        for x, y in pairs:
            self._own(x, y)
            fits = x.ndim >= 2 and len(y.shape) == x.ndim and x.shape[-1] == y.shape[-2]
            if not fits or x.shape[:-2] != y.shape[:-2]:
                raise ShapeError(
                    f"matmul takes (..., n, k) @ (..., k, m) with equal batch axes, got {x.shape} @ {y.shape}"
                )
        return self._products(pairs, magnitude, matmul=True)

    # ---- functions of one opening ---------------------------------------------------------------------------------

    def series(self, x: Share, functions: Sequence[Series]) -> list[Share]:
        """f(x) for every Fourier series f, all of one period, from one opening of x mod that period.

        Price: one round, period + fractional bits rounded to whole bytes (3 bytes an element for periods to 64),
        also when x has a truncation pending: low bits are dropped locally, which is exact modulo the period.
        """
        if len({(f.period_bits, f.mask_frac, f.public_frac) for f in functions}) != 1:
            raise ShapeError("the series of one opening must have one period and one precision: fold by public factors")
        self._own(x)
        functions = [self.agree(f) for f in functions]
        period = functions[0].period_bits
        x = self._modulo(x, period, *(f.needed_width(self.fixed, x.frac) for f in functions))
        return self._series(x, list(functions), *opening_bits(period, x.frac))

    def exponential(self, x: Share, function: Exponential) -> Share:
        """e^x on the function's domain, from one opening and a table that the dealer shares.

        Error: 2.1e-6, and relative 2^-19 and a pending x's rounding, at most 2^-15. Price: as `series`; stays pending.
        """
        self._own(x)
        x = self._modulo(x, function.period_bits)
        return function.wrap(self, self._exponential(x, function, *opening_bits(function.period_bits, x.frac)))

    def _modulo(self, x: Share, period_bits: int, *widths: int) -> Share:
        """x as an opening modulo 2^period_bits takes it: wide enough for that (and for `widths`), and for a turn."""
        if x.width < max(x.frac + period_bits, *widths, 0):
            (x,) = self._settled([x])
        return self._aligned(x, max(x.frac, LEAST_BITS - period_bits))

    def less(self, x: Share, thresholds: Sequence[float], *, bound: float, precision: int | None = None,
             magnitude: int | None = None) -> list[Share]:
        """[x < c] for each public threshold c, as shares of 0 or 1 (no fractional bits), for |x| < bound.

        `precision` keeps that many fractional bits of x: the result may be wrong only where |x - c| <= 2^-precision.
        `magnitude` bounds products with settled values that the bits go into, as in `mul`: the width of the shares.
        Price: three rounds; an element costs its window (precision + bits of bound + 1), 2n - 1 bits a threshold for n
        blocks of at most 8 bits, and a bit for each threshold together; each of these in whole bytes.
        """
        if not thresholds or not all(math.isfinite(c) for c in thresholds):
            raise RangeError(f"a comparison needs one or more finite thresholds, got {list(thresholds)}")
        exact = x.frac
        x, window = self._windowed(x, _positive(bound) + max(abs(float(c)) for c in thresholds), precision)
        # a dropped share sum lies up to two units below x, so the threshold goes down; an exact one goes up
        nearest = math.ceil if x.frac == exact else math.floor
        exactly = [(float(c), nearest(c * 2.0**x.frac)) for c in thresholds]
        width = self.fixed.window(2 * self.fixed.frac, self.fixed.magnitude if magnitude is None else magnitude)
        return [Share(self, bit, 0, width, 1) for bit in self._less(x, exactly, window, width)]

    def relu(self, x: Share, *, bound: float, precision: int | None = None) -> Share:
        """max(x, 0) for |x| < bound. Price: two rounds, otherwise as `less` with one threshold."""
        x, window = self._windowed(x, _positive(bound), precision)
        return self._relu(x, window, WORD_BITS)

    def maximum(self, x: Share, axis: int, *, bound: float, precision: int | None = None) -> Share:
        """Maximum along an axis, which is kept with length 1, for |x| < bound. The result is right modulo its width.

        With `precision`, low bits are dropped first: the result lies less than 2 units of 2^-precision below the
        maximum and never above it, for a quarter of the bytes, where that suffices (softmax is shift invariant).
        Price: 2 ceil(log2 n) rounds; n - 1 comparisons a row.
        """
        x, window = self._windowed(x, 2 * _positive(bound), precision)  # differences reach twice the bound
        x = Share(self, x.data, x.frac, x.width, min(x.magnitude, window - 2 - x.frac))
        axis = axis % x.ndim
        while (n := x.shape[axis]) > 1:
            half = n // 2
            lower, upper, odd = (x[_along(axis, s)] for s in (slice(half), slice(half, 2 * half), slice(2 * half, n)))
            larger = self.add(upper, self._relu(self.add(lower, self.negate(upper)), window, window))
            x = self.concatenate([larger, odd], axis) if n % 2 else larger
        return x

    def select(self, bit: Share, x: Share, y: Share) -> Share:
        """x where bit is 1, y where it is 0. Price: as `mul`."""
        return self.add(y, self.mul(bit, self.add(x, self.negate(y))))

    # ---- bookkeeping ----------------------------------------------------------------------------------------------

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names a part of the program in costs and errors. Sessions that meter override it."""
        yield

    def _own(self, *xs: Share | Weight) -> None:
        for x in xs:
            if x.session is not self:
                raise ShapeError("a share of another session was given; bring the value into this session first")

    def _wrap(self, data: Any, frac: int, width: int = WORD_BITS) -> Share:
        return Share(self, data, frac, width, self.fixed.magnitude)

    def _aligned(self, x: Share, frac: int) -> Share:
        if x.frac == frac:
            return x
        shift = frac - x.frac
        return Share(self, self._shift(x.data, shift), frac, min(WORD_BITS, x.width + shift), x.magnitude)

    def _settled(self, xs: Sequence[Share], widths: Sequence[int] | None = None) -> list[Share]:
        """Truncates those of xs that carry more than the session's fractional bits, and widens those that are narrower
        than `widths` (default: whole words), each once, all in one round."""
        self._own(*xs)
        wanted: dict[int, int] = {}
        for x, width in zip(xs, widths or [WORD_BITS] * len(xs), strict=True):
            wanted[id(x)] = max(width, wanted.get(id(x), 0))
        due: dict[int, Truncation] = {}
        for x in xs:
            shift = max(0, x.frac - self.fixed.frac)
            if shift or x.width < wanted[id(x)]:
                need = x.frac + x.magnitude + 2
                if x.width < need:
                    raise RangeError(
                        f"{x!r} promises values below 2^{x.magnitude}, which takes {need} bits to truncate; it has "
                        f"{x.width}. State the product's magnitude, or settle before scaling"
                    )
                window = min(x.width, shift + self.fixed.window(x.frac - shift, x.magnitude))
                due[id(x)] = Truncation(x, shift, window, max(window - shift, wanted[id(x)]))
        jobs = list(due.values())
        done = {
            id(job.x): Share(self, data, job.x.frac - job.shift, job.width, job.x.magnitude)
            for job, data in zip(jobs, self._truncate(jobs) if jobs else [], strict=True)
        }
        return [done.get(id(x), x) for x in xs]

    def _products(self, pairs: Sequence[Pair], magnitude: int | None, matmul: bool) -> list[Share]:
        magnitude = self.fixed.magnitude if magnitude is None else max(1, magnitude)
        widths = [self._width(*pair, magnitude) for pair in pairs]
        given = [(v, w) for pair, w in zip(pairs, widths, strict=True) for v in pair if isinstance(v, Share)]
        flat = iter(self._settled([v for v, _ in given], [w for _, w in given]))
        settled = [(next(flat), y if isinstance(y, Weight) else next(flat)) for _, y in pairs]
        products = self._matmul(settled, widths) if matmul else self._mul(settled, widths)
        return [
            Share(self, data, a.frac + b.frac, w, min(magnitude, w - 2 - a.frac - b.frac))
            for (a, b), w, data in zip(settled, widths, products, strict=True)
        ]

    def _width(self, x: Share, y: Share | Weight, magnitude: int) -> int:
        """Bits that a product of x and y, once they are settled, is computed in."""
        if isinstance(y, Weight) and y.width < WORD_BITS:
            return y.width if x.frac > self.fixed.frac else min(x.width, y.width)
        fracs = (v.frac if isinstance(v, Weight) else min(v.frac, self.fixed.frac) for v in (x, y))
        return self.fixed.window(max(sum(fracs), 2 * self.fixed.frac), magnitude)

    def _windowed(self, x: Share, reach: float, precision: int | None) -> tuple[Share, int]:
        """Drops fractional bits locally down to `precision` (default: the session's), and the window that then holds
        |x| < reach. Dropping bits of both shares is exact mod 2^(width - dropped) up to one unit in the last place."""
        self._own(x)
        keep = min(x.frac, self.fixed.frac if precision is None else precision)
        if x.frac > keep:
            dropped, reach = x.frac - keep, reach + 2.0 ** (1 - keep)  # rounding down must not leave the window
            x = Share(self, self._drop(x.data, dropped), keep, x.width - dropped, x.magnitude)
        window = keep + 1 + max(0, math.ceil(math.log2(reach)))
        if window > min(x.width, 33):
            raise RangeError(
                f"a comparison of |x| < {reach:g} at {keep} fractional bits needs a window of {window} bits; at most "
                f"{min(x.width, 33)} are there. Lower the bound or the precision"
            )
        return x, window

    def _transpose(self, a: Any, axes: tuple[int, ...]) -> Any:
        """Axes permuted, as arrays spell it; sessions on other tensors override it."""
        return a.transpose(*axes)

    # ---- primitives -----------------------------------------------------------------------------------------------

    @abstractmethod
    def _share(self, x: Any, owner: int, shape: tuple[int, ...]) -> Any: ...
    @abstractmethod
    def _accept(self, data: Any) -> Any: ...
    @abstractmethod
    def _public(self, x: np.ndarray, frac: int) -> Any: ...
    @abstractmethod
    def _reveal(self, x: Share, to: int | str) -> Any: ...
    @abstractmethod
    def _add(self, a: Any, b: Any) -> Any: ...
    @abstractmethod
    def _negate(self, a: Any) -> Any: ...
    @abstractmethod
    def _shift(self, a: Any, bits: int) -> Any: ...
    @abstractmethod
    def _drop(self, a: Any, bits: int) -> Any: ...
    @abstractmethod
    def _scale(self, a: Any, c: np.ndarray, bits: int) -> Any: ...
    @abstractmethod
    def _point(self, a: Any, exponent: int) -> Any: ...
    @abstractmethod
    def _sum(self, a: Any, axis: int, keepdims: bool) -> Any: ...
    @abstractmethod
    def _concatenate(self, parts: list[Any], axis: int) -> Any: ...
    @abstractmethod
    def _broadcast(self, a: Any, shape: tuple[int, ...]) -> Any: ...
    @abstractmethod
    def _truncate(self, jobs: list[Truncation]) -> list[Any]: ...
    @abstractmethod
    def _mul(self, pairs: list[Any], widths: list[int]) -> list[Any]: ...
    @abstractmethod
    def _matmul(self, pairs: list[Any], widths: list[int]) -> list[Any]: ...
    @abstractmethod
    def _series(self, x: Share, functions: list[Series], bits: int, keep: int) -> list[Share]: ...
    @abstractmethod
    def _exponential(self, x: Share, function: Exponential, bits: int, keep: int) -> Any: ...
    @abstractmethod
    def _less(self, x: Share, thresholds: list[Threshold], window: int, width: int) -> list[Any]: ...
    @abstractmethod
    def _relu(self, x: Share, window: int, width: int) -> Share: ...


def _positive(bound: float) -> float:
    if not (math.isfinite(bound) and bound > 0):
        raise RangeError(f"a bound must be positive and finite, got {bound}; take it from the range profile")
    return bound


def _along(axis: int, index: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, index)
