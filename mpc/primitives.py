"""What a session must be able to do, beneath the verbs: every primitive takes shares or their data and returns data.

Which scale, width and magnitude the data have is decided by `Session`, which wraps them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from secformer.mpc.errors import SettingsError
from secformer.mpc.functions import Exponential, Opening, Series
from secformer.mpc.guards import Check, Texts
from secformer.mpc.rounds import Job
from secformer.mpc.scales import Truncation
from secformer.mpc.shares import Share, Weight

Data = Any  # words at a party, values in the twin, a shape in the recorder
Threshold = tuple[float, int]  # its value, and in units of the compared share's last place


class Levels(NamedTuple):
    """What rows are compared with.

    thresholds  one or more
    window      bits of the opening: they hold x - c for every value x and threshold c
    width       results are right modulo 2^width
    low, high   where every value lies
    """

    thresholds: tuple[Threshold, ...]
    window: int
    width: int
    low: float
    high: float


class Primitives(ABC):
    """The interface between the verbs and a session's kind of data. `frac` and `bits` count fractional bits."""

    # ---- in and out

    @abstractmethod
    def _share(self, x: Any, owner: int, shape: tuple[int, ...]) -> Data:
        """Data of party `owner`'s float64 array x; x is None at the other party."""

    @abstractmethod
    def _accept(self, data: Any) -> Data:
        """Data that were shared beforehand."""

    def _operand(self, data: Any) -> Data:
        """Data that were shared beforehand, to be multiplied by weights and nothing else."""
        return self._accept(data)

    @abstractmethod
    def _open_weight(self, data: Any, index: int, width: int) -> Any:
        """What is kept of weight number `index`, a (K, N) matrix shared beforehand."""

    @abstractmethod
    def _held(self, weight: Weight) -> Data:
        """Data of a weight."""

    def _cache(self, row: tuple[int, int], base: Weight | None) -> Any:
        """What is kept of a cache, at first. Raises SettingsError in a session that has none."""
        raise SettingsError(f"a {type(self).__name__} has no caches; run whole texts in it")

    @abstractmethod
    def _public(self, x: np.ndarray, frac: int) -> Data:
        """Data of a public float64 array."""

    @abstractmethod
    def _reveal(self, x: Share, to: int | str) -> Any:
        """Like `Session.reveal`. x is settled."""

    # ---- local

    @abstractmethod
    def _add(self, a: Data, b: Data) -> Data:
        """a + b of one scale, broadcasting."""

    def _sum_of(self, a: Data, up: int, b: Data, more: int, minus: bool) -> Data:
        """a with `up` more fractional bits, plus or `minus` b with `more` of them; what this is made of, unless a
        session can do it at once."""
        a, b = self._shift(a, up) if up else a, self._shift(b, more) if more else b
        return self._add(a, self._negate(b) if minus else b)

    @abstractmethod
    def _negate(self, a: Data) -> Data:
        """-a."""

    @abstractmethod
    def _shift(self, a: Data, bits: int) -> Data:
        """a with `bits` more fractional bits."""

    @abstractmethod
    def _drop(self, a: Data, bits: int) -> Data:
        """a with `bits` fewer fractional bits, each share rounded down."""

    def _dropping(self, a: Data, bits: int) -> Data:
        """As `_drop`, for data that are only opened under a mask."""
        return self._drop(a, bits)

    @abstractmethod
    def _rounded(self, a: Data, bits: int) -> Data:
        """a with `bits` fewer fractional bits, one party's share rounded down and the other's up: less than one unit
        off, and exact where the bits are 0."""

    @abstractmethod
    def _scale(self, a: Data, c: np.ndarray, bits: int) -> Data:
        """a times public c, which adds `bits` fractional bits."""

    @abstractmethod
    def _point(self, a: Data, exponent: int) -> Data:
        """a times 2^exponent by moving the point."""

    @abstractmethod
    def _sum(self, a: Data, axis: int, keepdims: bool) -> Data:
        """Sum along an axis."""

    @abstractmethod
    def _concatenate(self, parts: list[Data], axis: int) -> Data:
        """Parts of one scale, joined along an axis."""

    @abstractmethod
    def _broadcast(self, a: Data, shape: tuple[int, ...]) -> Data:
        """a, repeated to a shape."""

    def _transpose(self, a: Data, axes: tuple[int, ...]) -> Data:
        """Axes permuted, as NumPy's arrays spell it."""
        return a.transpose(*axes)

    # ---- verbs

    def _together(self, jobs: Sequence[Job]) -> list[list[Data]]:
        """What each of these gives: calls of what takes one round and opens once. One round."""
        return [job() for job in jobs]

    @abstractmethod
    def _truncate(self, jobs: list[Truncation]) -> list[Data]:
        """Every job's result. One round."""

    @abstractmethod
    def _mul(self, pairs: list[Any], widths: list[int], kept: list[Any]) -> list[Data]:
        """Element-wise products of (Operand, Operand), each mod 2^width; behind them the operands in `kept`, right
        modulo the largest width of their products. One round."""

    @abstractmethod
    def _matmul(self, pairs: list[Any], widths: list[int]) -> list[Data]:
        """Matrix products of (Operand, and Operand, Weight or Entering), each mod 2^width. One round."""

    @abstractmethod
    def _series(self, x: Share, functions: list[Series], opening: Opening, width: int,
                check: Check | None) -> list[Data]:
        """f(x) for each f, mod 2^width, from one opening of x."""

    @abstractmethod
    def _exponential(self, x: Share, function: Exponential, opening: Opening, check: Check | None) -> Data:
        """e^x, from one opening."""

    @abstractmethod
    def _less(self, x: Share, thresholds: list[Threshold], window: int, width: int,
              check: Check | None) -> list[Data]:
        """[x < c] for each threshold, 0 or 1 mod 2^width, for an x that lies in the window."""

    @abstractmethod
    def _reached(self, x: Share, levels: Levels, check: Check | None) -> list[Data]:
        """[some value along the last axis >= c] for each threshold, (..., 1), 0 or 1 mod 2^width."""

    @abstractmethod
    def _relu(self, x: Share, window: int, width: int, check: Check | None) -> Data:
        """max(x, 0) mod 2^width, for an x that lies in the window."""

    # ---- clients' rows

    def _toss(self) -> list[Any]:
        """A coin of both parties (see `ops/coin`). One round."""
        self._nothing_shared()

    def _sketches(self, x: Share, spans: Sequence[tuple[int, int]], count: int, coin: Any) -> Data:
        """Random sketches of rows (see `ops/unit_rows`)."""
        self._nothing_shared()

    def _digest(self, x: Share, coin: Any) -> list[Data]:
        """A key that both parties have if x is 0, in whole words (see `ops/zero`). One round."""
        self._nothing_shared()

    def _tags(self, key: Data) -> list[Data]:
        """Words that are 0 if the other party has the same key (see `ops/zero`). One round."""
        self._nothing_shared()

    def _nothing_shared(self) -> NoReturn:
        raise SettingsError(f"a {type(self).__name__} gets plain rows, which need no check; check shares")

    # ---- guards (see `guarding`); every verb does what its check asks for, if it has one

    @abstractmethod
    def _watch(self, texts: Texts | None, count: int) -> None:
        """Starts to gather what checks say; None: stops."""

    @abstractmethod
    def _witness(self, jobs: list[tuple[Share, Check]]) -> None:
        """Checks values that nothing else opens, each in its whole width. One round."""

    @abstractmethod
    def _seen(self, apart: bool) -> Any:
        """What the checks said, by text, and if `apart` by place (see `guarding.Guarded`)."""
