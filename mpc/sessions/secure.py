"""The session of one party of two: computes on shares, and talks to the peer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from secformer.mpc.errors import SettingsError, ShapeError
from secformer.mpc.fixed import decode, encode
from secformer.mpc.functions import Exponential, Opening, Series
from secformer.mpc.guards import Check, Texts
from secformer.mpc.kernels.words import Dropped
from secformer.mpc.ops import coin, compare, exponential, guard, linear, series, thresholds, truncate, unit_rows, zero
from secformer.mpc.party import Opens, Party
from secformer.mpc.prg import Stream
from secformer.mpc.primitives import Levels, Threshold
from secformer.mpc.rounds import Job
from secformer.mpc.scales import Truncation
from secformer.mpc.session import CLIENT, Session
from secformer.mpc.shares import Share, Weight


@lru_cache(maxsize=1 << 12, typed=True)
def _factor(c: float, bits: int) -> np.uint64:
    """A public number as a word; a program scales by few."""
    return np.uint64(encode(c, bits))


class SecureSession(Session):
    """Words mod 2^64 at one party; the verbs of `Session` as protocols with the peer and the dealer."""

    def __init__(self, party: Party):
        super().__init__(party.fixed)
        self.party = party
        self.xp = party.kernels.xp
        self._watcher: guard.Watch | None = None
        self._sharing: list[Opens] | None = None  # verbs that will share a round

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        with self.party.meter.scope(name), super().scope(name):
            yield

    # ---- in and out -----------------------------------------------------------------------------------------------

    def _share(self, x: Any, owner: int, shape: tuple[int, ...]) -> Any:
        count = int(np.prod(shape, dtype=np.int64))
        if self.party.rank != owner:
            return self.party.receive("share", count).reshape(shape)
        words = self._accept(encode(np.broadcast_to(np.asarray(x, dtype=np.float64), shape), self.fixed.frac))
        mask = self.party.private.words(count).reshape(shape)
        self.party.send("share", mask)
        return words - mask

    def _accept(self, data: Any) -> Any:
        return self._operand(data).astype(np.uint64)  # a copy: the caller's buffer may change later

    def _operand(self, data: Any) -> Any:
        words = self.xp.asarray(data)
        if words.dtype.kind != "u":
            raise ShapeError(f"shares are unsigned words, got {words.dtype}; encode and split values first")
        return words

    def _open_weight(self, data: Any, index: int, width: int) -> Any:
        return linear.open_weight(self.party, self.xp.asarray(data), index, width)

    def _held(self, weight: Weight) -> Any:
        factor, _ = weight.data.words  # W = b + d, and this is b_0 + d or b_1
        return factor.astype(np.uint64)

    def _cache(self, row: tuple[int, int], base: Weight | None) -> linear.OpenedRows:
        return linear.OpenedRows()

    def _reveal(self, x: Share, to: int | str) -> Any:
        fetched = self.party.kernels.backend.fetched
        if to == CLIENT:
            return fetched(x.data, lambda words: words)
        if self.party.rank != to:
            self.party.send("reveal", x.data)
            return None
        words = x.data + self.party.receive("reveal", x.size).reshape(x.shape)
        return fetched(words, lambda words: decode(words, x.frac, x.width))

    # ---- local ----------------------------------------------------------------------------------------------------

    def index(self, index: Any) -> Any:
        brought = self.party.kernels.backend.brought
        if isinstance(index, tuple):
            return tuple(brought(i) if isinstance(i, np.ndarray) else i for i in index)
        return brought(index) if isinstance(index, np.ndarray) else index

    def _public(self, x: np.ndarray, frac: int) -> Any:
        words = encode(x, frac)
        return self.party.kernels.backend.brought(words, zeros=self.party.rank != 0)

    def _add(self, a: Any, b: Any) -> Any:
        return a + b

    def _sum_of(self, a: Any, up: int, b: Any, more: int, minus: bool) -> Any:
        return self.party.kernels.added(a, up, b, more, minus)

    def _negate(self, a: Any) -> Any:
        return np.uint64(0) - a

    def _shift(self, a: Any, bits: int) -> Any:
        return a << np.uint64(bits)

    def _drop(self, a: Any, bits: int) -> Any:
        return a >> np.uint64(bits)

    def _dropping(self, a: Any, bits: int) -> Any:
        return Dropped(a, bits) if bits else a

    def _rounded(self, a: Any, bits: int) -> Any:
        return truncate.drop(a, bits, self.party.rank == 1)

    def _scale(self, a: Any, c: np.ndarray, bits: int) -> Any:
        # a number travels with the launch, an array would be copied first
        return a * (self.party.kernels.backend.brought(encode(c, bits)) if c.ndim else _factor(float(c), bits))

    def _point(self, a: Any, exponent: int) -> Any:
        return a  # moving the point leaves the words alone

    def _sum(self, a: Any, axis: int, keepdims: bool) -> Any:
        return a.sum(axis=axis, keepdims=keepdims, dtype=np.uint64)

    def _concatenate(self, parts: list[Any], axis: int) -> Any:
        return self.party.kernels.backend.joined(parts, axis)

    def _broadcast(self, a: Any, shape: tuple[int, ...]) -> Any:
        return self.xp.broadcast_to(a, shape)

    # ---- verbs ----------------------------------------------------------------------------------------------------

    def _together(self, jobs: Sequence[Job]) -> list[list[Any]]:
        steps: list[Opens] = []
        self._sharing = steps
        try:
            super()._together(jobs)
        finally:
            self._sharing = None
        return self.party.play(*steps)

    def _played(self, steps: Opens) -> list[Any]:
        """What a verb gives; nothing yet where it shares its round."""
        if self._sharing is None:
            return self.party.play(steps)[0]
        self._sharing.append(steps)
        return []

    def _truncate(self, jobs: list[Truncation]) -> list[Any]:
        return truncate.truncate(self.party, jobs)

    def _mul(self, pairs: list[Any], widths: list[int], kept: list[Any]) -> list[Any]:
        return self._played(linear.hadamard(self.party, pairs, widths, kept))

    def _matmul(self, pairs: list[Any], widths: list[int]) -> list[Any]:
        return self._played(linear.matmul(self.party, pairs, widths))

    def _series(self, x: Share, functions: list[Series], opening: Opening, width: int,
                check: Check | None) -> list[Any]:
        return self._played(series.series(self.party, x, functions, opening, width, check))

    def _exponential(self, x: Share, function: Exponential, opening: Opening, check: Check | None) -> Any:
        return exponential.exponential(self.party, x, function, opening, check)

    def _less(self, x: Share, thresholds: list[Threshold], window: int, width: int, check: Check | None) -> list[Any]:
        return compare.less(self.party, x.data, [c for _, c in thresholds], window, width, check)

    def _reached(self, x: Share, levels: Levels, check: Check | None) -> list[Any]:
        return thresholds.reached(self.party, x.data, levels, check)

    def _relu(self, x: Share, window: int, width: int, check: Check | None) -> Any:
        return compare.relu(self.party, x.data, window, width, check)

    # ---- clients' rows --------------------------------------------------------------------------------------------

    def _toss(self) -> list[Any]:
        return self._played(coin.toss(self.party))

    def _sketches(self, x: Share, spans: Sequence[tuple[int, int]], count: int, coin: Stream) -> Any:
        return unit_rows.sketches(self.party, x.data, spans, count, coin)

    def _digest(self, x: Share, coin: Stream) -> list[Any]:
        return self._played(zero.digest(self.party, x.data, coin))

    def _tags(self, key: Any) -> list[Any]:
        return self._played(zero.tags(self.party, key))

    # ---- guards ---------------------------------------------------------------------------------------------------

    def _watch(self, texts: Texts | None, count: int) -> None:
        self._watcher = None if texts is None else guard.Watch(self.party, texts, count)
        self.party.watch = self._watcher

    def _witness(self, jobs: list[tuple[Share, Check]]) -> None:
        guard.witness(self.party, jobs)

    def _seen(self, apart: bool) -> Any:
        if self._watcher is None:
            raise SettingsError("nothing was watched: open a guarded block first")
        return self._watcher.words(apart)
