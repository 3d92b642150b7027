"""Which shapes of requests a party is asked for, so that material is made ahead for those that will come."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from secformer.mpc.dealer.plan import Plan
from secformer.roles.messages import Half

SHAPES = 64      # plans that are remembered: those that were asked for last
HALF = 600.0     # seconds after which an ask counts half
FORGET = 3600.0  # seconds after which a plan that nobody asks for is forgotten
ASKED = 2        # asks before which no material is made: most odd shapes come once


@dataclass
class _Asked:
    """How often a plan was asked for: in all, and weighed by age as of `last`."""

    plan: Plan
    shape: bytes = field(repr=False)
    last: float
    times: int = 0
    weight: float = 0.0


@dataclass(frozen=True)
class Want:
    """A plan that was asked for.

    weight  how often lately, and how often it waits now
    worth   whether material is to be made for it
    """

    plan: Plan
    weight: float
    worth: bool

    def ratio(self, left: int) -> float:
        """How long `left` runs will last, and one more, compared with other plans."""
        return (left + 1) / self.weight


class Demand:
    """The plans that were asked for, each with its weight. Thread-safe. `clock` gives seconds, as `time.monotonic`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._began = clock, clock()
        self._asked: OrderedDict[str, _Asked] = OrderedDict()  # by plan's digest; the newest ask comes last
        self._lock = threading.Lock()

    def note(self, plan: Plan, shape: bytes) -> None:
        """A request of this shape needs a run of this plan."""
        now = self._clock()
        with self._lock:
            asked = self._asked.setdefault(plan.digest, _Asked(plan, shape, now))
            asked.weight, asked.last, asked.shape = _aged(asked, now) + 1, now, shape
            asked.times += 1
            self._asked.move_to_end(plan.digest)
            while len(self._asked) > SHAPES:
                self._asked.popitem(last=False)

    def wants(self, waiting: Mapping[bytes, int]) -> dict[str, Want]:
        """The plans that were asked for, by digest, given what waits by shape. Forgets those that nobody has asked for
        in a long time."""
        now = self._clock()
        with self._lock:
            for digest in [digest for digest, asked in self._asked.items() if now - asked.last > FORGET]:
                del self._asked[digest]
            return {digest: Want(asked.plan, _aged(asked, now) + waiting.get(asked.shape, 0),
                                 asked.times + waiting.get(asked.shape, 0) >= ASKED)
                    for digest, asked in self._asked.items()}

    def complete(self) -> bool:
        """Whether a plan that is not remembered is one that nobody wants: after its start, a party does not know."""
        return self._clock() - self._began > FORGET


def _aged(asked: _Asked, now: float) -> float:
    return float(asked.weight * 0.5 ** ((now - asked.last) / HALF))


def shape_of(half: Half) -> bytes:
    """What requests have in common that need the same plan: lengths and mask."""
    return np.ascontiguousarray(half.lengths, "<i8").tobytes() + np.packbits(half.mask).tobytes()


def shapes_of(halves: Iterable[Half]) -> Counter[bytes]:
    """How many halves there are of each shape. Steps of sessions are left out: a store has nothing for them."""
    return Counter(shape_of(half) for half in halves if half.step is None)
