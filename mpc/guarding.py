"""The guard of a session: checks values in secret, and tells their owner alone which texts cannot be trusted.

    with s.guarding({tokens: text_of_each_token, texts: np.arange(texts)}) as guard:
        ...                      verbs check what they open, where a protocol states an interval
    guard.words                  goes to the client, who adds both parties' words: 0 where all values passed

Inside, every series and exponential with a domain, every comparison and every promise that is `checked` is guarded by
tables that ride on the opening (see `guards`): that costs no round and no byte between the parties. What nothing opens
is checked at the end, by `expect`. Outside, nothing is checked and nothing is spent.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from secformer.mpc.errors import SettingsError
from secformer.mpc.guards import RING, Check, Interval, Texts, chain, texts_of
from secformer.mpc.operators import LocalOperators
from secformer.mpc.scales import Truncation
from secformer.mpc.shares import Share

BEYOND = 0.125  # of an interval, that a guard looks beyond an end where values may lie at the end: more than a part
WITNESS_FRAC = 18        # fractional bits of an expected value, relative to what it is expected near


class Expected(NamedTuple):
    """A value that must lie in an interval once it is divided by 2^exponent: x itself, or x times `by`."""

    x: Share
    by: Share | None
    exponent: int
    interval: Interval


@dataclass
class Guarded:
    """What a guarded block found, once it has ended.

    apart   whether each place has a column of its own, so that whoever receives the words learns where values failed
    words   (texts, 1) or (texts, places): in the twin 1 where a value left its interval, else 0; at a party see
            `ops/guard`
    places  all places: the scope and the quantity, such as "layer.1.softmax: spread"
    """

    apart: bool = False
    words: Any = None
    places: list[str] = field(default_factory=list)


class Guarding(LocalOperators):
    """What a session adds to its verbs while it is guarded."""

    _guarded: Guarded | None = None  # set inside a guarded block
    _texts: Texts = MappingProxyType({})

    def __init__(self) -> None:
        self.site = ""  # names the place of what is checked next; the scope does, where it is empty
        self._expected: list[Expected] = []
        self._path: list[str] = []

    @contextmanager
    def guarding(self, texts: Texts, count: int, guarded: Guarded | None = None) -> Iterator[Guarded]:
        """Guards a program's values. Price: one round and 64 bytes for the coin; with expectations, one round for all,
        one more where products are left to make, and one more where their factors are not settled.

        texts  for each length that a value's first axis may have, the text of each row; -1 for rows that do not count
        count  number of texts
        guarded  takes what is found; default: one column for all places
        """
        if self._guarded is not None:
            raise SettingsError("this session is guarded already; one block guards one program")
        guarded = self._guarded = guarded or Guarded()
        guarded.places.clear()
        self._texts = texts
        try:
            self._watch(texts, count)
            yield guarded
            with self.scope("guard"):
                self._settle_expectations(guarded)
            guarded.words = self._seen(guarded.apart)
        finally:
            self._guarded, self._expected, self.site = None, [], ""
            self._watch(None, 0)

    @abstractmethod
    def mul_many(self, pairs: Any, *, magnitude: Any = None) -> list[Share]: ...

    @abstractmethod
    def scope(self, name: str) -> Any: ...

    @property
    def guarded(self) -> bool:
        """Whether values are checked here."""
        return self._guarded is not None

    def checked(self, x: Share, low: float, high: float, what: str) -> Share:
        """x with a checked promise: when x is next truncated, or opened to be so, low <= x <= high is checked.

        The check stays with views of x (slices, reshapes, transpositions), and is lost where x is added or scaled.
        Without a guard, x itself.
        """
        return x if self._guarded is None else x.expecting(self._interval(low, high, what))

    def expect(self, x: Share, exponent: int, tolerance: float, what: str, *, by: Share | None = None,
               times: float = 1.0) -> None:
        """Checks at the end of the guarded block that x, or the product x * by, is `times` 2^exponent, up to the
        relative `tolerance`. `times` is about 1. Nothing without a guard."""
        if self._guarded is not None:
            interval = self._interval(times * (1.0 - tolerance), times * (1.0 + tolerance), what)
            self._expected.append(Expected(x, by, exponent, interval))

    def expect_within(self, x: Share, low: float, high: float, what: str) -> None:
        """Checks at the end of the guarded block that low <= x <= high. As in `checked`, values near an end may be
        taken for others: less than a tenth of the interval away. Nothing without a guard."""
        if self._guarded is not None:
            exponent = math.frexp(max(abs(low), abs(high)))[1]
            interval = self._interval(low / 2.0**exponent, high / 2.0**exponent, what)
            self._expected.append(Expected(x, None, exponent, interval))

    # ---- for verbs ------------------------------------------------------------------------------------------------

    def _interval(self, low: float, high: float, what: str) -> Interval:
        """An interval of a quantity at this place of the program."""
        return Interval(low, high, f"{self.site or '/'.join(self._path)}: {what}")

    def _check(self, x: Share, interval: Interval, frac: int, bits: int, offset: int = 0,
               times: float = RING) -> Check | None:
        """The check of an opening of x in `bits` bits, `frac` of them fractional; None without a guard."""
        if self._guarded is None:
            return None
        self._guarded.places.append(interval.place)
        texts_of(self._texts, x.shape)
        return Check(interval, chain(interval.low, interval.high, frac, bits, offset, times))

    def _watched(self, job: Truncation) -> Truncation:
        if job.x.interval is None or self._guarded is None:
            return job
        bits = job.window - job.shift
        return job._replace(check=self._check(job.x, job.x.interval, job.x.frac - job.shift, bits, 1 << (bits - 2)))

    def _settle_expectations(self, guarded: Guarded) -> None:
        """Multiplies what is left to multiply, all at once, and opens everything that is expected, all at once."""
        expected = self._expected
        pairs = [(e.x, e.by) for e in expected if e.by is not None]
        # whole words, so that few wrong values come out right
        products = iter(self.mul_many(pairs, magnitude=self.fixed.whole) if pairs else ())
        jobs = []
        for e in expected:
            x = (e.x if e.by is None else next(products)) * 2.0**-e.exponent
            down = max(0, x.frac - WITNESS_FRAC)
            x = Share(self, self._dropping(x.data, down), x.frac - down, x.width - down, x.magnitude)
            guarded.places.append(e.interval.place)
            jobs.append((x, Check(e.interval, chain(e.interval.low, e.interval.high, x.frac, x.width))))
        if jobs:
            self._witness(jobs)
