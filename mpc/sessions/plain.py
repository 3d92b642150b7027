"""The float64 twin: the same programs on plain numbers.

It is the oracle of the tests, the source of range profiles and the reference of every bench. It counts fractional bits
and widths as the secure session does, so both settle at the same places. With `strict` it refuses a value that a
truncation's window could not hold; the secure session cannot see such a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from secformer.mpc.caches import Entering
from secformer.mpc.errors import RangeError, SettingsError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.functions import Exponential, Opening, Series
from secformer.mpc.guards import Check, Texts, texts_of
from secformer.mpc.primitives import Levels, Threshold
from secformer.mpc.scales import Operand, Truncation, distinct
from secformer.mpc.session import Session
from secformer.mpc.shares import Share, Weight

FARTHEST = 60.0  # inputs of exponentials count as no more, so that what is made of them stays finite; domains end at 2


@dataclass(frozen=True)
class Departure:
    """A checked quantity of one text that left its interval: its place, what was met, and what is allowed."""

    text: int
    place: str
    low: float
    high: float
    allowed: tuple[float, float]


class Sight:
    """Which checked values of which text left their intervals, by text and place."""

    def __init__(self, texts: Texts, count: int):
        self.texts, self.count = texts, count
        self.columns: list[np.ndarray] = []

    def see(self, x: np.ndarray, check: Check) -> list[Departure]:
        """Counts values in. Returns what left its interval."""
        rows, (low, high) = x.reshape(len(x), -1), (check.interval.low, check.interval.high)
        texts = texts_of(self.texts, x.shape)
        out = ~((rows >= low) & (rows <= high)).all(axis=1)  # a NaN lies nowhere
        left = np.zeros(self.count + 1)
        left[texts[out]] = 1.0
        self.columns.append(left[:-1])
        found = []
        for text in np.flatnonzero(left[:-1]).tolist():
            values = rows[texts == text]
            found.append(Departure(text, check.interval.place, float(values.min()), float(values.max()), (low, high)))
        return found


@dataclass
class Rows:
    """The rows (T, G, D) of a cache; 0 in slots that were not used yet."""

    values: np.ndarray = field(repr=False)

    def take(self, b: Entering) -> None:
        """The new rows of an operand, in their slots."""
        cache = b.cached.cache
        self.values = np.pad(self.values, ((0, cache.capacity - len(self.values)), (0, 0), (0, 0)))
        self.values[b.cached.first : b.cached.first + b.rows.shape[0]] = b.rows.data


class PlainSession(Session):
    """Runs a program on float64 arrays. Not secure, and not meant to be."""

    numbers = np.ndarray

    def __init__(self, fixed: FixedPoint | None = None, *, strict: bool = True):
        super().__init__(fixed)
        self.strict = strict
        self._seeing: Sight | None = None
        self.departures: list[Departure] = []

    def values(self, x: Share) -> np.ndarray:
        return np.asarray(x.data)

    def _hold(self, value: np.ndarray, bits: int, what: str) -> None:
        if self.strict and value.size and not np.abs(value).max() < 2.0**bits:
            raise RangeError(
                f"{self._where()}: {what} holds |v| < 2^{bits}, got {np.abs(value).max():.6g}; "
                f"use a session with a larger magnitude, or a profile that covers this input"
            )

    def _where(self) -> str:
        return "/".join(self._path) or "the program"

    def _share(self, x: Any, owner: int, shape: tuple[int, ...]) -> np.ndarray:
        if x is None:
            raise RangeError("the twin holds every value: give the array itself, whoever owns it")
        return np.broadcast_to(np.asarray(x, dtype=np.float64), shape)

    def _accept(self, data: Any) -> np.ndarray:
        return np.asarray(data, dtype=np.float64)

    def _open_weight(self, data: Any, index: int, width: int) -> np.ndarray:
        return self._accept(data)

    def _held(self, weight: Weight) -> np.ndarray:
        return np.asarray(weight.data)

    def _cache(self, row: tuple[int, int], base: Weight | None) -> Rows:
        return Rows(np.zeros((0, *row)) if base is None else base.data.reshape(-1, *row))

    def _public(self, x: np.ndarray, frac: int) -> np.ndarray:
        return x

    def _reveal(self, x: Share, to: int | str) -> np.ndarray:
        return np.asarray(x.data)

    def _add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(a + b)

    def _negate(self, a: np.ndarray) -> np.ndarray:
        return -a

    def _shift(self, a: np.ndarray, bits: int) -> np.ndarray:
        return a

    def _drop(self, a: np.ndarray, bits: int) -> np.ndarray:
        return a

    def _rounded(self, a: np.ndarray, bits: int) -> np.ndarray:
        return a

    def _scale(self, a: np.ndarray, c: np.ndarray, bits: int) -> np.ndarray:
        return np.asarray(a * c)

    def _point(self, a: np.ndarray, exponent: int) -> np.ndarray:
        return a * 2.0**exponent

    def _sum(self, a: np.ndarray, axis: int, keepdims: bool) -> np.ndarray:
        return np.asarray(a.sum(axis=axis, keepdims=keepdims))

    def _concatenate(self, parts: list[np.ndarray], axis: int) -> np.ndarray:
        return np.concatenate(parts, axis=axis)

    def _broadcast(self, a: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return np.broadcast_to(a, shape)

    def _truncate(self, jobs: list[Truncation]) -> list[np.ndarray]:
        for job in jobs:
            self._hold(job.x.data, job.window - 2 - job.x.frac, "a truncation window")
            self._see(job.x.data, job.check)
        return [job.x.data for job in jobs]

    def _mul(self, pairs: list[tuple[Operand, Operand]], widths: list[int], kept: list[Operand]) -> list[np.ndarray]:
        self._enter(pairs)
        return [*(a.data * b.data for a, b in pairs), *(v.data for v in kept)]

    def _matmul(self, pairs: list[tuple[Operand, Operand | Weight | Entering]], widths: list[int]) -> list[np.ndarray]:
        self._enter(pairs)
        for b in distinct(pairs):
            if isinstance(b, Entering):
                b.cached.cache.data.take(b)
        return [a.data @ (b.cached.placed(b.cached.cache.data.values) if isinstance(b, Entering) else b.data)
                for a, b in pairs]

    def _enter(self, pairs: Sequence[tuple[Operand, Operand | Weight | Entering]]) -> None:
        """Holds and sees what products open."""
        for v in distinct(pairs):
            if isinstance(v, Operand):
                if v.window:
                    self._hold(v.data, v.window - 2 - v.frac, "a product's lifted operand")
                self._see(v.data, v.check)

    def _series(self, x: Share, functions: list[Series], opening: Opening, width: int,
                check: Check | None) -> list[np.ndarray]:
        self._see(x.data, check)
        return [f(x.data) for f in functions]

    def _exponential(self, x: Share, function: Exponential, opening: Opening, check: Check | None) -> np.ndarray:
        self._see(x.data, check)
        if self.strict and x.size and not (function.low <= x.data.min() and x.data.max() <= function.high):
            raise RangeError(f"{self._where()}: a masked exponential holds [{function.low:g}, {function.high:g}], got "
                             f"{x.data.min():.6g} to {x.data.max():.6g}; use a profile that covers this input")
        return np.asarray(np.exp(np.minimum(x.data, FARTHEST)))

    def _less(self, x: Share, thresholds: list[Threshold], window: int, width: int,
              check: Check | None) -> list[np.ndarray]:
        self._hold(x.data, window - 1 - x.frac, "a comparison")
        self._see(x.data, check)
        return [(x.data < c).astype(np.float64) for c, _ in thresholds]

    def _reached(self, x: Share, levels: Levels, check: Check | None) -> list[np.ndarray]:
        if self.strict and x.size and not (levels.low <= x.data.min() and x.data.max() <= levels.high):
            raise RangeError(f"{self._where()}: thresholds are compared with values in [{levels.low:g}, "
                             f"{levels.high:g}], got {x.data.min():.6g} to {x.data.max():.6g}; use a profile that "
                             f"covers this input")
        self._see(x.data, check)
        largest = x.data.max(axis=-1, keepdims=True)
        return [(largest >= c).astype(np.float64) for c, _ in levels.thresholds]

    def _relu(self, x: Share, window: int, width: int, check: Check | None) -> np.ndarray:
        self._hold(x.data, window - 1 - x.frac, "a comparison")
        self._see(x.data, check)
        return np.asarray(np.maximum(x.data, 0.0))

    # ---- guards ---------------------------------------------------------------------------------------------------

    def _watch(self, texts: Texts | None, count: int) -> None:
        self._seeing = None if texts is None else Sight(texts, count)
        if texts is not None:
            self.departures = []

    def _witness(self, jobs: list[tuple[Share, Check]]) -> None:
        for x, check in jobs:
            self._see(x.data, check)

    def _see(self, x: np.ndarray, check: Check | None) -> None:
        if check is not None and self._seeing is not None:
            self.departures += self._seeing.see(x, check)

    def _seen(self, apart: bool) -> np.ndarray:
        if self._seeing is None:
            raise SettingsError("nothing was watched: open a guarded block first")
        found = np.stack([np.zeros(self._seeing.count), *self._seeing.columns], axis=1)
        return found[:, 1:] if apart else found.max(axis=1, keepdims=True)
