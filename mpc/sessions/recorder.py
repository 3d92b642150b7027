"""The plan recorder: runs a program on shapes alone, and lists its correlations and its price."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np

from secformer.mpc.dealer.comparisons import Less, Relu
from secformer.mpc.dealer.kinds import CHUNK, Kind, WeightMask
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.products import Bilinear, Hadamard, MatMul
from secformer.mpc.errors import RangeError
from secformer.mpc.fixed import FixedPoint, encode
from secformer.mpc.functions import Exponential, Opening, Series
from secformer.mpc.guards import Check, Texts
from secformer.mpc.ops import exponential, guard, linear, series, thresholds, truncate, zero
from secformer.mpc.ops.coin import COIN
from secformer.mpc.primitives import Levels, Threshold
from secformer.mpc.rounds import Job
from secformer.mpc.scales import Truncation
from secformer.mpc.script import Script, Trace, placed, standing
from secformer.mpc.session import CLIENT, Session
from secformer.mpc.shares import Share, Weight

_NOTHING = bytes(1)  # the memory of all ghosts


def ghost(shape: Sequence[int]) -> np.ndarray:
    """An array of that shape which takes no memory."""
    return np.ndarray(tuple(shape), np.bool_, _NOTHING, 0, (0,) * len(shape))


class PlanRecorder(Session):
    """Data are ghosts, arrays of shapes alone; verbs list their correlations."""

    def __init__(self, fixed: FixedPoint | None = None, *, chunk: int = CHUNK):
        super().__init__(fixed)
        self._chunk = chunk
        self._standing = count()  # numbers the values that programs bring before they are traced
        self._kinds: list[Kind] = []
        self._rounds = 0
        self._bytes = 0
        self._constants = hashlib.sha256()
        self._count = 0
        self._trace: Trace | None = None
        self._sharing: list[int] | None = None  # the rounds of verbs that share one

    def script(self, program: Callable[..., Any], *inputs: Any) -> Script:
        """As `record`, with all that the program does (see `Script`). Takes longer."""
        trace = self._trace = Trace()
        try:
            return trace.script(self.record(program, *inputs))
        finally:
            self._trace = None

    def record(self, program: Callable[..., Any], *inputs: Any) -> Plan:
        """The plan of `program(session, *inputs)`. A recording that fails leaves no weights behind."""
        self._kinds, self._rounds, self._bytes, self._constants = [], 0, 0, hashlib.sha256()
        self._note(self.fixed)
        with self.taking_back():
            program(self, *inputs)
        return Plan(tuple(self._kinds), self._rounds, self._bytes, self._constants.hexdigest())

    def _note(self, *constants: Any) -> None:
        """Public numbers of the program, for the plan's digest."""
        for c in constants:
            if isinstance(c, np.ndarray):
                once = c[tuple(slice(0, 1) if step == 0 else slice(None) for step in c.strides)]  # as if not broadcast
                self._constants.update(repr(c.shape).encode() + once.tobytes())
            else:
                self._constants.update(repr(c).encode())

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names the place in errors: what does not fit shows here, before anything is shared."""
        try:
            with super().scope(name):
                yield
        except RangeError as error:
            raise RangeError(f"{name}: {error}") from error

    def _told(self, step: str, *facts: Any) -> None:
        """A step of the program, for its script."""
        if self._trace is not None:
            self._trace.note(step, *facts)

    def _made(self, shape: Sequence[int]) -> Any:
        """A new value of that shape."""
        return ghost(shape) if self._trace is None else self._trace.ghost(shape)

    def index(self, index: Any) -> Any:
        if self._trace is None:
            return index
        parts = []
        for part in index if isinstance(index, tuple) else (index,):
            if isinstance(part, np.ndarray):
                parts.append(placed(part, self._trace.brings(part)))
            else:
                self._trace.note("index", part)
                parts.append(part)
        self._trace.note("indices", isinstance(index, tuple))
        return tuple(parts) if isinstance(index, tuple) else parts[0]

    def _take(self, *kinds: Kind) -> None:
        """Correlations that one verb uses side by side."""
        self._told("take", kinds)
        self._kinds.extend(kinds)
        self._price(max(kind.rounds for kind in kinds), sum(kind.opened for kind in kinds))

    def _price(self, rounds: int, opened: int) -> None:
        """What a verb costs: rounds, and the bytes that each party sends in them."""
        if self._sharing is None:
            self._rounds += rounds
        else:
            self._sharing.append(rounds)
        self._bytes += 2 * opened

    def _message(self, count: int) -> None:
        self._rounds += 1
        self._bytes += 8 * count

    def _share(self, x: Any, owner: int, shape: tuple[int, ...]) -> Any:
        self._message(int(np.prod(shape, dtype=np.int64)))
        self._told("share", owner)
        return self._made(shape)

    def _accept(self, data: Any) -> Any:
        self._told("accept", str(getattr(data, "dtype", "")))
        shape = np.shape(data)
        return self._made(shape) if self._trace is not None else standing(shape, str(next(self._standing)))

    def _open_weight(self, data: Any, index: int, width: int) -> None:
        self._take(WeightMask(index, tuple(np.shape(data)), width))

    def _held(self, weight: Weight) -> Any:
        self._told("held", weight)
        return self._made(weight.shape)

    def _cache(self, row: tuple[int, int], base: Weight | None) -> None:
        return None

    def _public(self, x: np.ndarray, frac: int) -> Any:
        self._note(x, frac)
        if self._trace is not None:
            self._trace.brings(encode(x, frac))
        return self._made(x.shape)

    def _reveal(self, x: Share, to: int | str) -> Any:
        self._told("reveal", x, to)
        if to != CLIENT:
            self._message(x.size)
        return np.zeros(x.shape)

    def _add(self, a: Any, b: Any) -> Any:
        self._told("add", a, b)
        return self._made(np.broadcast_shapes(a.shape, b.shape))

    def _negate(self, a: Any) -> Any:
        self._told("negate", a)
        return self._made(a.shape)

    def _shift(self, a: Any, bits: int) -> Any:
        self._told("shift", a, bits)
        return self._made(a.shape)

    def _drop(self, a: Any, bits: int) -> Any:
        self._told("drop", a, bits)
        return self._made(a.shape)

    def _rounded(self, a: Any, bits: int) -> Any:
        self._told("rounded", a, bits)
        return self._made(a.shape)

    def _scale(self, a: Any, c: np.ndarray, bits: int) -> Any:
        self._note(c, bits)
        if self._trace is not None:
            words = encode(c, bits)
            if words.ndim:
                self._trace.brings(words)
            self._trace.note("scale", a, bits, "array" if words.ndim else int(words))
        return self._made(np.broadcast_shapes(a.shape, c.shape))

    def _point(self, a: Any, exponent: int) -> Any:
        return a  # moving the point leaves the words alone

    def _sum(self, a: Any, axis: int, keepdims: bool) -> Any:
        axis %= a.ndim
        self._told("sum", a, axis, keepdims)
        return self._made((*a.shape[:axis], *((1,) if keepdims else ()), *a.shape[axis + 1 :]))

    def _concatenate(self, parts: list[Any], axis: int) -> Any:
        shape = list(parts[0].shape)
        shape[axis] = sum(p.shape[axis] for p in parts)
        self._told("concatenate", parts, axis)
        return self._made(shape)

    def _broadcast(self, a: Any, shape: tuple[int, ...]) -> Any:
        self._told("broadcast", a, shape)
        return self._made(shape)

    def _together(self, jobs: Sequence[Job]) -> list[list[Any]]:
        self._told("together", len(jobs))
        rounds: list[int] = []
        self._sharing = rounds
        try:
            found = super()._together(jobs)
        finally:
            self._sharing = None
        self._rounds += max(rounds)
        return found

    def _truncate(self, jobs: list[Truncation]) -> list[Any]:
        self._told("truncate", jobs)
        self._take(*(truncate.kind_of(job) for job in jobs))
        return [self._made(job.x.shape) for job in jobs]

    def _mul(self, pairs: list[Any], widths: list[int], kept: list[Any]) -> list[Any]:
        self._told("kept", kept)
        return [*self._bilinear(Hadamard, pairs, widths), *(self._made(v.shape) for v in kept)]

    def _matmul(self, pairs: list[Any], widths: list[int]) -> list[Any]:
        return self._bilinear(MatMul, pairs, widths)

    def _bilinear(self, cls: type[Bilinear], pairs: list[Any], widths: list[int]) -> list[Any]:
        kind, _ = linear.bilinear(cls, pairs, widths)
        self._told(cls.__name__, pairs, widths)
        self._take(kind)
        return [self._made(kind.product_shape(i, j)) for i, j, _ in kind.pairs]

    def _series(self, x: Share, functions: list[Series], opening: Opening, width: int,
                check: Check | None) -> list[Any]:
        self._note(*functions)
        self._told("series", x, functions, opening, width, check)
        for f in functions:
            if f.linear:
                f.linear_factor(x.frac)  # refuses here what a party could not compute
        self._take(series.kind_of(x.size, opening, functions, width, self._chunk, check))
        return [self._made(x.shape) for _ in functions]

    def _exponential(self, x: Share, function: Exponential, opening: Opening, check: Check | None) -> Any:
        self._note(function)
        self._told("exponential", x, function, opening, check)
        self._take(exponential.kind_of(x.size, opening, function, self._chunk, check))
        return self._made(x.shape)

    def _less(self, x: Share, thresholds: list[Threshold], window: int, width: int, check: Check | None) -> list[Any]:
        self._note(*thresholds)
        self._told("less", x, thresholds, window, width, check)
        self._take(Less(x.size, window, width, len(thresholds), self._chunk, guard.plain(check)))
        return [self._made(x.shape) for _ in thresholds]

    def _reached(self, x: Share, levels: Levels, check: Check | None) -> list[Any]:
        self._note(levels)
        self._told("reached", x, levels, check)
        for kind in thresholds.kinds_of(x.shape, levels, self._chunk, check):
            self._take(kind)
        return [self._made((*x.shape[:-1], 1)) for _ in levels.thresholds]

    def _relu(self, x: Share, window: int, width: int, check: Check | None) -> Any:
        self._told("relu", x, window, width, check)
        self._take(Relu(x.size, window, width, chunk=self._chunk, guards=guard.plain(check)))
        return self._made(x.shape)

    def _toss(self) -> list[Any]:
        self._take(COIN)
        return [self._made((COIN.count,))]

    def _sketches(self, x: Share, spans: Sequence[tuple[int, int]], count: int, coin: Any) -> Any:
        self._note(tuple(spans), count)
        self._told("sketches", x, spans, count)
        return self._made((len(spans), len(x), 3 * count + 1))

    def _digest(self, x: Share, coin: Any) -> list[Any]:
        self._told("digest", x)
        self._take(zero.KIND)
        return [self._made((zero.WORDS,))]

    def _tags(self, key: Any) -> list[Any]:
        self._told("tags", key)
        self._price(1, zero.TAG_BYTES)
        return [np.zeros(zero.WORDS, np.uint64)]

    def _watch(self, texts: Texts | None, count: int) -> None:
        self._count = count
        self._told("watch", texts, count)
        if texts is not None:
            self._take(COIN)

    def _witness(self, jobs: list[tuple[Share, Check]]) -> None:
        self._told("witness", jobs)
        self._take(*(guard.kind_of(x, check) for x, check in jobs))

    def _seen(self, apart: bool) -> Any:
        self._told("seen", apart)
        return np.zeros((self._count, 0 if apart else 1))
