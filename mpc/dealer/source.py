"""Where a party takes its correlations from: its seed, and for party 1 the dealer's corrections."""

from __future__ import annotations

import threading

from secformer.mpc.dealer.expand import Expansion, FieldStreams
from secformer.mpc.dealer.kinds import Kind
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import Desync, ReusedRandomness
from secformer.mpc.kernels import Kernels
from secformer.mpc.meter import Meter
from secformer.mpc.net.channel import Channel
from secformer.mpc.prg import Name


class Source:
    """The `Correlations` of one run, in the plan's order. The cursor moves before anything is handed out.

    run         names the run's streams: use a name once under a seed
    cache       names the streams of the caches that its products take, in one run or in several
    cache_seed  of those, where they do not have the run's
    """

    def __init__(
        self, seed: bytes, run: Name, plan: Plan, dealer: Channel | None, kernels: Kernels, meter: Meter,
        cache: Name | None = None, cache_seed: bytes | None = None,
    ):
        self._streams, self._plan = FieldStreams(seed, run, cache, kernels, cache_seed), plan
        self._dealer, self._kernels, self._meter = dealer, kernels, meter
        self._cursor, self._lock = 0, threading.Lock()
        if dealer is not None:
            dealer.buffer = kernels.backend.buffer

    def take(self, kind: Kind) -> Expansion:
        """The next correlation, which must be `kind`. Raises Desync when the plan says otherwise."""
        with self._lock:
            index, self._cursor = self._cursor, self._cursor + 1
        if index >= len(self._plan.kinds):
            raise ReusedRandomness(
                f"the plan's {len(self._plan.kinds)} correlations are used up and {kind!r} was asked for; "
                f"start a new run under a fresh name"
            )
        planned = self._plan.kinds[index]
        if planned is not kind and planned != kind:
            raise Desync(
                f"correlation {index}: the plan has {planned!r}, the program asked for {kind!r}; record the plan anew"
            )
        return Expansion(planned, index, self._streams, self._dealer, self._kernels, self._meter)
