"""What a program costs: seconds, bytes, rounds and dealer bytes, by nested scope, online and offline apart."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

DEEPEST = 32  # scopes in each other that a cost from outside may have
MOST = 2**63  # figures of a cost from outside stay below
COUNTERS = ("seconds", "offline_seconds", "bytes", "offline_bytes", "rounds", "offline_rounds", "dealer_bytes")


@dataclass
class Cost:
    """A tree of scopes. Every figure of a node includes its children.

    seconds          wall time, online part (the slower party)
    offline_seconds  expanding and awaiting correlated randomness, input-independent products, provisioning
    bytes            both directions together, online; offline_bytes for provisioning
    rounds           message exchanges that wait on each other; offline_rounds for provisioning
    dealer_bytes     corrections from the dealer to party 1
    """

    name: str = "total"
    seconds: float = 0.0
    offline_seconds: float = 0.0
    bytes: int = 0
    offline_bytes: int = 0
    rounds: int = 0
    offline_rounds: int = 0
    dealer_bytes: int = 0
    children: dict[str, Cost] = field(default_factory=dict)

    def child(self, name: str) -> Cost:
        """The scope of that name, made if it is new."""
        return self.children.setdefault(name, Cost(name))

    def merged(self, other: Cost, *, parallel: bool = False) -> Cost:
        """This cost and another: one after the other, or, with `parallel`, of two parties running together (bytes
        add up, rounds and seconds are the larger)."""
        values: dict[str, Any] = {}
        for key in COUNTERS:
            a, b = getattr(self, key), getattr(other, key)
            values[key] = max(a, b) if parallel and not key.endswith("bytes") else a + b
        merged = Cost(self.name, **values)
        for name in [*self.children, *(n for n in other.children if n not in self.children)]:
            merged.children[name] = self.children.get(name, Cost(name)).merged(
                other.children.get(name, Cost(name)), parallel=parallel
            )
        return merged

    def lasting(self, seconds: float) -> Cost:
        """The same counts in so many seconds, of which nobody knows what parts they went to."""
        children = {name: child.lasting(0.0) for name, child in self.children.items()}
        return replace(self, seconds=seconds, offline_seconds=0.0, children=children)

    def __add__(self, other: Cost) -> Cost:
        return self.merged(other)

    def predict(self, *, latency: float, bandwidth: float) -> float:
        """Online seconds on a network: measured compute, plus a one-way latency (s) per round, plus each direction's
        bytes at `bandwidth` (bits/s)."""
        return self.seconds + self.rounds * latency + self.bytes / 2 * 8 / bandwidth

    def by_kind(self) -> dict[str, Cost]:
        """Costs summed by the name of the scope that talks (softmax, gelu, ...), whatever layer it is in; seconds
        between those scopes count as "other"."""
        totals: dict[str, Cost] = {}
        self._collect(totals)
        return totals

    def _collect(self, totals: dict[str, Cost]) -> None:
        # the larger of the two parties' times counts, so the children may add up to a little more than their scope
        own = {
            key: max(0, getattr(self, key) - sum(getattr(c, key) for c in self.children.values())) for key in COUNTERS
        }
        name = self.name if not self.children or own["bytes"] or own["rounds"] else "other"
        if any(own.values()):
            totals[name] = totals.get(name, Cost(name)) + Cost(name, **own)
        for c in self.children.values():
            c._collect(totals)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and names, for JSON."""
        return {
            "name": self.name,
            **{key: getattr(self, key) for key in COUNTERS},
            "children": [c.as_dict() for c in self.children.values()],
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any], *, deep: int = DEEPEST) -> Cost:
        """The inverse of `as_dict`, of at most `deep` scopes in each other. Raises KeyError, TypeError or ValueError
        for anything else."""
        if not deep:
            raise ValueError(f"a cost has at most {DEEPEST} scopes in each other")
        numbers: dict[str, Any] = {key: _figure(facts[key], whole=not key.endswith("seconds")) for key in COUNTERS}
        children = [cls.from_dict(child, deep=deep - 1) for child in facts["children"]]
        return cls(str(facts["name"]), **numbers, children={c.name: c for c in children})

    def __str__(self) -> str:
        lines = [f"{'scope':<28}{'seconds':>9}{'offline':>9}{'MB':>10}{'rounds':>8}{'dealer MB':>11}"]
        self._lines(lines, 0)
        return "\n".join(lines)

    def _lines(self, lines: list[str], depth: int) -> None:
        lines.append(
            f"{'  ' * depth + self.name:<28}{self.seconds:>9.3f}{self.offline_seconds:>9.3f}"
            f"{(self.bytes + self.offline_bytes) / 1e6:>10.3f}{self.rounds + self.offline_rounds:>8}"
            f"{self.dealer_bytes / 1e6:>11.3f}"
        )
        for c in self.children.values():
            c._lines(lines, depth + 1)


def _figure(value: Any, *, whole: bool) -> float:
    """A figure of a cost. Raises ValueError for anything but a number that a cost can have."""
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not -MOST < value < MOST:
        raise ValueError(f"a cost has numbers, got {str(value)[:40]}")
    return value if whole else float(value)


class Meter:
    """Counts what one party spends, in the current scope and in all scopes around it."""

    def __init__(self, name: str = "total"):
        self.cost = Cost(name)
        self._stack = [self.cost]
        self._offline = 0  # blocks of offline work around this moment
        self._apart = Offline(self)

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        node = self._stack[-1].child(name)
        self._stack.append(node)
        start, before = time.perf_counter(), node.offline_seconds
        try:
            yield
        finally:
            node.seconds += time.perf_counter() - start - (node.offline_seconds - before)
            self._stack.pop()

    def offline(self) -> Offline:
        """Time, bytes and rounds in here do not depend on the input: they belong to the offline phase."""
        return self._apart

    def sent(self, nbytes: int) -> None:
        for node in self._stack:
            if self._offline:
                node.offline_bytes += nbytes
            else:
                node.bytes += nbytes

    def round(self) -> None:
        for node in self._stack:
            if self._offline:
                node.offline_rounds += 1
            else:
                node.rounds += 1

    def dealt(self, nbytes: int) -> None:
        for node in self._stack:
            node.dealer_bytes += nbytes

    def close(self, started: float) -> Cost:
        """Ends the count of a run that started at perf_counter time `started`. Returns its cost."""
        self.cost.seconds = time.perf_counter() - started - self.cost.offline_seconds
        return self.cost


class Offline:
    """Offline work of one meter, as a block; blocks may lie in each other. One for all blocks, since they are many."""

    def __init__(self, meter: Meter):
        self._meter, self._start = meter, 0.0

    def __enter__(self) -> None:
        if not self._meter._offline:
            self._start = time.perf_counter()
        self._meter._offline += 1

    def __exit__(self, *error: object) -> None:
        self._meter._offline -= 1
        if not self._meter._offline:
            spent = time.perf_counter() - self._start
            for node in self._meter._stack:
                node.offline_seconds += spent
