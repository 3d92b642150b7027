"""How fast N cells answer a batch job, as a discrete-event simulation: what bench/cells.py measures goes in.

One driver hands calls out and takes answers in; that work is done one call after the other. Each cell answers its calls
one after the other, in a service time that is drawn from measured ones. It has a few calls queued, so that it never
waits for the driver while there is work. What a call sends from the client to the parties, and back, shares the
client's one link. Each cell has a dealer of its own, whose time is part of the service time: cells share no dealer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import simpy


@dataclass(frozen=True)
class Measured:
    """What a job consists of.

    services  seconds in which a cell answers a call, one for each measured call; they are drawn in turn
    rows      rows of a call, on average
    driver    processor seconds that the driver spends on a call
    carried   bytes between the client and both parties for a call
    queue     calls that a cell has, running or waiting
    """

    services: Sequence[float]
    rows: float
    driver: float
    carried: float
    queue: int


def rate(measured: Measured, cells: int, bits_per_second: float, calls_each: int = 200) -> float:
    """Rows per second of a job that gives each cell `calls_each` calls, on average."""
    world = simpy.Environment()
    driver, link = simpy.Resource(world), simpy.Resource(world)
    services = itertools.cycle(measured.services)
    left = iter(range(cells * calls_each))
    carrying = 8 * measured.carried / bits_per_second

    def slot(parties: Any) -> Iterator[Any]:
        """One place in a cell's queue, which takes call after call."""
        for _ in left:
            with driver.request() as mine:
                yield mine
                yield world.timeout(measured.driver)
            with link.request() as mine:
                yield mine
                yield world.timeout(carrying)
            with parties.request() as mine:
                yield mine
                yield world.timeout(next(services))

    for _ in range(cells):
        parties = simpy.Resource(world)
        for _ in range(measured.queue):
            world.process(slot(parties))  # type: ignore[arg-type]
    world.run()
    return float(cells * calls_each * measured.rows / world.now)
