"""Local operators: what a session does to shares without a message, and the scales that they meet at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from secformer.mpc.caches import Cached
from secformer.mpc.errors import RangeError, ShapeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.primitives import Primitives
from secformer.mpc.ring import WORD_BITS
from secformer.mpc.scales import Truncation, truncations
from secformer.mpc.shares import Operators, Public, Share, Weight


class LocalOperators(Operators, Primitives):
    """Free operators on shares of one session, whose number format is `fixed`."""

    fixed: FixedPoint

    def public(self, x: Public, shape: tuple[int, ...] | None = None) -> Share:
        """A public constant as a share. Local."""
        x = np.asarray(x, dtype=np.float64)
        return self._wrap(self._public(x if shape is None else np.broadcast_to(x, shape), self.fixed.frac),
                          self.fixed.frac)

    def add(self, x: Share, y: Share | Public) -> Share:
        """x + y at the finer of the two scales. Exact: aligning shifts left, which also widens."""
        if isinstance(y, Share):
            return self._summed(x, y, minus=False)
        y = np.asarray(y)
        frac = x.frac if y.dtype.kind in "biu" and x.frac >= 0 else max(x.frac, self.fixed.frac)
        a = self._aligned(x, frac)
        return a.like(self._add(a.data, self._public(np.asarray(y, dtype=np.float64), frac)))

    def subtract(self, x: Share, y: Share) -> Share:
        """x - y at the finer of the two scales, as `add`."""
        return self._summed(x, y, minus=True)

    def _summed(self, x: Share, y: Share, minus: bool) -> Share:
        self._own(x, y)
        frac = max(x.frac, y.frac)
        up, more = frac - x.frac, frac - y.frac
        width = min(WORD_BITS, x.width + up, y.width + more)
        return Share(self, self._sum_of(x.data, up, y.data, more, minus), frac, width, max(x.magnitude, y.magnitude))

    def negate(self, x: Share) -> Share:
        """-x."""
        self._own(x)
        return x.like(self._negate(x.data))

    def scale(self, x: Share, c: Public) -> Share:
        """x times public c. Integers scale exactly; a power of two only moves the point; any other factor adds up to
        `frac` fractional bits, and settles x first (the engine truncates) where no room is left for them."""
        self._own(x)
        c = np.asarray(c)
        if c.dtype.kind in "biu":
            return x.like(self._scale(x.data, c.astype(np.float64), 0))
        top = float(np.abs(c).max(initial=0.0)) if c.ndim else abs(float(c))
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
        """Sum along an axis."""
        self._own(x)
        return x.like(self._sum(x.data, axis, keepdims))

    def concatenate(self, xs: Sequence[Share], axis: int = 0) -> Share:
        """xs joined along an axis, at the finest of their scales."""
        self._own(*xs)
        frac = max(x.frac for x in xs)
        parts = [self._aligned(x, frac) for x in xs]
        return Share(self, self._concatenate([p.data for p in parts], axis), frac,
                     min(p.width for p in parts), max(p.magnitude for p in parts))

    def broadcast_to(self, x: Share, shape: tuple[int, ...]) -> Share:
        """x, repeated to a shape."""
        return x.like(self._broadcast(x.data, shape))

    def transpose(self, x: Share, axes: tuple[int, ...]) -> Share:
        """x with its axes permuted."""
        return x.view(self._transpose(x.data, axes))

    # ---- scales ---------------------------------------------------------------------------------------------------

    def _own(self, *xs: Share | Weight | Cached) -> None:
        """Raises ShapeError for what belongs to another session. Here what was put off and is needed now runs."""
        for x in xs:
            if x.session is not self:
                raise ShapeError("a share of another session was given; bring the value into this session first")
            if isinstance(x, Share):
                _ = x.data

    def _wrap(self, data: Any, frac: int, width: int = WORD_BITS) -> Share:
        return Share(self, data, frac, width, self.fixed.magnitude)

    def _aligned(self, x: Share, frac: int) -> Share:
        """x with so many fractional bits, at least as many as it has."""
        if x.frac == frac:
            return x
        shift = frac - x.frac
        return Share(self, self._shift(x.data, shift), frac, min(WORD_BITS, x.width + shift), x.magnitude)

    def _settled(self, xs: Sequence[Share], widths: Sequence[int] | None = None) -> list[Share]:
        """Truncates those of xs that carry more than the session's fractional bits, and widens those that are narrower
        than `widths` (default: whole words), each once, all in one round."""
        self._own(*xs)
        jobs = [self._watched(job) for job in truncations(xs, widths or [WORD_BITS] * len(xs), self.fixed)]
        found = self._truncate(jobs) if jobs else []
        done = {id(job.x): job.result(data) for job, data in zip(jobs, found, strict=True)}
        return [done.get(id(x), x) for x in xs]

    def _watched(self, job: Truncation) -> Truncation:
        """The job with its check, in sessions that are guarded (see `guarding`)."""
        return job
