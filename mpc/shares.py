"""Handles on shared values: what protocols hold, add and slice.

A `Share` is one party's view of a value: its data (words mod 2^width at a party, float64 in the twin, a shape in the
recorder) and the public facts that travel with it:

frac       fractional bits that the data carry; more than the session's means that a truncation is pending
width      the data are right modulo 2^width; reducing is free, only a truncation widens
magnitude  promise |value| < 2^magnitude, from the session's format or from a protocol that knows its domain: it holds
           for what is settled in the end
held       whether the promise was made for the value as it is, so that it may be opened in as few bits
interval   what a guarded session checks the value for when it is truncated next; None: nothing
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NoReturn

import numpy as np

from secformer.mpc.errors import ShapeError
from secformer.mpc.guards import Interval
from secformer.mpc.rounds import Later

Public = float | int | np.ndarray
Standing = int | tuple[int, ...]  # a weight's number; or that, a range of its columns, and 1 where they are transposed


class Operators(ABC):
    """The local operators that shares are added, scaled and turned with; every session has them."""

    @abstractmethod
    def add(self, x: Share, y: Share | Public) -> Share: ...
    @abstractmethod
    def subtract(self, x: Share, y: Share) -> Share: ...
    @abstractmethod
    def negate(self, x: Share) -> Share: ...
    @abstractmethod
    def scale(self, x: Share, c: Public) -> Share: ...
    @abstractmethod
    def sum(self, x: Share, axis: int, keepdims: bool = False) -> Share: ...
    @abstractmethod
    def transpose(self, x: Share, axes: tuple[int, ...]) -> Share: ...

    def index(self, index: Any) -> Any:
        """A public index as this session's arrays take it."""
        return index


class Share:
    """A shared array. Operators are free (local); everything that talks is a verb of the session."""

    __slots__ = ("_data", "frac", "held", "interval", "magnitude", "session", "width")
    __array_ufunc__ = None  # numpy arrays on the left defer to our reflected operators
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, session: Operators, data: Any, frac: int, width: int, magnitude: int,
                 interval: Interval | None = None, held: bool = False):
        self.session, self._data, self.frac, self.width, self.magnitude = session, data, frac, width, magnitude
        self.interval, self.held = interval, held

    @property
    def data(self) -> Any:
        """The data. If the round that gives them was put off, it runs now (see `rounds`)."""
        if type(self._data) is Later:  # asked for thousands of times per token
            self._data = self._data.found()
        return self._data

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._data.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def like(self, data: Any) -> Share:
        """The same scale, width and promise for other data."""
        return Share(self.session, data, self.frac, self.width, self.magnitude)

    def view(self, data: Any) -> Share:
        """The same facts about the same values, in another shape."""
        return Share(self.session, data, self.frac, self.width, self.magnitude, self.interval, self.held)

    def expecting(self, interval: Interval) -> Share:
        """The same share with an interval to check (see `Session.checked`)."""
        return Share(self.session, self.data, self.frac, self.width, self.magnitude, interval, self.held)

    def promise(self, magnitude: int) -> Share:
        """The same share with the promise |value| < 2^magnitude, from a protocol that knows better than the format.

        A promise is kept by whoever makes it: integer factors, public addends and sums do not change it, since it holds
        for the value that is settled in the end. Other factors and powers of two move it. An element-wise product may
        open a share that was promised, and not changed since, in the bits that the promise leaves.
        """
        return Share(self.session, self.data, self.frac, self.width, magnitude, held=True)

    def __add__(self, other: Share | Public) -> Share:
        return self.session.add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Share | Public) -> Share:
        if isinstance(other, Share):
            return self.session.subtract(self, other)
        return self.session.add(self, _negated(other))

    def __rsub__(self, other: Public) -> Share:
        return self.session.add(-self, other)

    def __neg__(self) -> Share:
        return self.session.negate(self)

    def __mul__(self, other: Public) -> Share:
        if isinstance(other, Share):
            raise ShapeError("`*` scales by a public number; a product of two shares talks: write session.mul(x, y)")
        return self.session.scale(self, other)

    __rmul__ = __mul__

    def sum(self, axis: int, keepdims: bool = False) -> Share:
        return self.session.sum(self, axis, keepdims)

    def mean(self, axis: int, keepdims: bool = False) -> Share:
        return self.session.scale(self.session.sum(self, axis, keepdims), 1.0 / self.shape[axis])

    def __getitem__(self, index: Any) -> Share:
        return self.view(self.data[self.session.index(index)])

    def reshape(self, *shape: int) -> Share:
        return self.view(self.data.reshape(*shape))

    def transpose(self, *axes: int) -> Share:
        return self.session.transpose(self, axes)

    def swapaxes(self, a: int, b: int) -> Share:
        return self.view(self.data.swapaxes(a, b))

    def __len__(self) -> int:
        return self.shape[0]

    def _refuse(self, *_: Any) -> NoReturn:
        raise ShapeError(
            "a share has no truth value and no order: nobody may see it. Compare with session.less(x, thresholds), "
            "reveal results with session.reveal(x, to)"
        )

    __bool__ = __lt__ = __le__ = __gt__ = __ge__ = __float__ = __int__ = _refuse
    __eq__ = __ne__ = _refuse

    def __repr__(self) -> str:
        return f"Share(shape={self.shape}, frac={self.frac}, width={self.width}, magnitude={self.magnitude})"


def _negated(c: Public) -> np.ndarray:
    """-c, for integers in a type that holds it."""
    c = np.asarray(c)
    return np.negative(c.astype(np.int64 if c.dtype.kind in "biu" else np.float64))


class Weight:
    """A standing right operand of `matmul`: a matrix (K, N) or a stack of them (..., K, N), masked once for as long as
    the model is loaded.

    index  its number; of some of its columns also which: (number, first, beyond the last), and a 1 behind these where
           the matrix is transposed
    """

    __slots__ = ("data", "frac", "index", "session", "shape", "width")

    def __init__(self, session: Operators, index: Standing, shape: tuple[int, ...], frac: int, width: int, data: Any):
        self.session, self.index, self.shape = session, index, tuple(shape)
        self.frac, self.width, self.data = frac, width, data

    def columns(self, start: int, stop: int) -> Weight:
        """The columns from `start` up to `stop`, under their part of the same mask: products pay for these alone.

        Raises ShapeError for columns that are not there, or for columns of columns.
        """
        if not 0 <= start < stop <= self.shape[-1] or not isinstance(self.index, int):
            raise ShapeError(f"columns are taken of a whole weight, within its {self.shape[-1]}; got {start} to {stop} "
                             f"of {self!r}")
        if (start, stop) == (0, self.shape[-1]):
            return self
        data = None if self.data is None else self.data[..., start:stop]
        return Weight(self.session, (self.index, start, stop), (*self.shape[:-1], stop - start), self.frac, self.width,
                      data)

    def transposed(self) -> Weight:
        """With its last two axes swapped, under the same mask. Raises ShapeError for columns."""
        if not isinstance(self.index, int):
            raise ShapeError(f"a whole weight is transposed, got {self!r}")
        data = None if self.data is None else self.data.swapaxes(-1, -2)
        return Weight(self.session, (self.index, 0, self.shape[-1], 1), (*self.shape[:-2], *self.shape[:-3:-1]),
                      self.frac, self.width, data)

    def __repr__(self) -> str:
        return f"Weight({self.index}, shape={self.shape}, frac={self.frac}, width={self.width})"
