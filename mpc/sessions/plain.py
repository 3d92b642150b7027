"""The float64 twin: the same programs on plain numbers.

It is the oracle of the tests, the source of range profiles and the reference of every bench. It counts fractional bits
and widths as the secure session does, so both settle at the same places. With `strict` it refuses a value that a
truncation's window could not hold; the secure session cannot see such a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.functions import Exponential, Series
from secformer.mpc.primitives import Threshold
from secformer.mpc.scales import Truncation
from secformer.mpc.session import Session
from secformer.mpc.shares import Share, Weight


class PlainSession(Session):
    """Runs a program on float64 arrays. Not secure, and not meant to be."""

    numbers = np.ndarray

    def __init__(self, fixed: FixedPoint | None = None, *, strict: bool = True):
        super().__init__(fixed)
        self.strict = strict
        self._path: list[str] = []

    def values(self, x: Share) -> np.ndarray:
        return np.asarray(x.data)

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        self._path.append(name)
        try:
            yield
        finally:
            self._path.pop()

    def _check(self, value: np.ndarray, bits: int, what: str) -> None:
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
            self._check(job.x.data, job.window - 2 - job.x.frac, "a truncation window")
        return [job.x.data for job in jobs]

    def _mul(self, pairs: list[tuple[Share, Share]], widths: list[int]) -> list[np.ndarray]:
        return [a.data * b.data for a, b in pairs]

    def _matmul(self, pairs: list[tuple[Share, Share | Weight]], widths: list[int]) -> list[np.ndarray]:
        return [a.data @ b.data for a, b in pairs]

    def _series(self, x: Share, functions: list[Series], bits: int, keep: int, width: int) -> list[np.ndarray]:
        return [f(x.data) for f in functions]

    def _exponential(self, x: Share, function: Exponential, bits: int, keep: int) -> np.ndarray:
        if self.strict and x.size and not (function.low <= x.data.min() and x.data.max() <= function.high):
            raise RangeError(f"{self._where()}: a masked exponential holds [{function.low:g}, {function.high:g}], got "
                             f"{x.data.min():.6g} to {x.data.max():.6g}; use a profile that covers this input")
        return np.asarray(np.exp(x.data))

    def _less(self, x: Share, thresholds: list[Threshold], window: int, width: int) -> list[np.ndarray]:
        self._check(x.data, window - 1 - x.frac, "a comparison")
        return [(x.data < c).astype(np.float64) for c, _ in thresholds]

    def _relu(self, x: Share, window: int, width: int) -> np.ndarray:
        self._check(x.data, window - 1 - x.frac, "a comparison")
        return np.asarray(np.maximum(x.data, 0.0))
