"""A cell as the driver sees it: what it was handed, whether it may get more, and what it has done.

A cell whose parties fail rests, longer after each failure, and then gets a probe: a question of its own. When that is
answered, the cell gets rows again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

AHEAD = 2            # calls that wait at a cell's worker, so that its parties never wait for the driver
REST = 1.0, 30.0     # seconds after the first failure, and the most after further ones
BUSY = 1.0           # seconds for which a cell rests whose party names no time


@dataclass(eq=False)
class Station:
    """A cell, with the settings that matter to the driver.

    room      positions of a call
    lanes     calls that run at the same time
    drained   it gets nothing now
    problem   why it rests; "" if it does not
    trusty    False: a probe must be answered before it gets rows
    """

    name: str
    room: int
    lanes: int
    clock: Callable[[], float] = time.monotonic
    calls: set[int] = field(default_factory=set)
    drained: bool = False
    problem: str = ""
    trusty: bool = True
    rows: int = 0
    failures: int = 0
    _rest: float = 0.0
    _until: float = 0.0

    @property
    def resting(self) -> bool:
        return self.clock() < self._until

    def wants(self, ending: bool = False) -> bool:
        """Whether it may be handed a call: rows, or a probe if it is not trusty. When the job is `ending`, calls do not
        wait at it, so that a cell that is done takes what another would."""
        most = 1 if not self.trusty else self.lanes if ending else self.lanes + AHEAD
        return not self.drained and not self.resting and len(self.calls) < most

    @property
    def serves(self) -> bool:
        """Whether rows may go to it, as far as is known."""
        return not self.drained and not self.problem

    def failed(self, problem: str) -> None:
        """Its parties, or its worker, could not answer."""
        if not self.resting:  # calls that were lost together are one failure
            self.failures += 1
            self._rest = min(max(REST[0], 2 * self._rest), REST[1])
            self._until = self.clock() + self._rest
        self.problem, self.trusty = problem, False

    def busy(self, problem: str, after: float | None) -> None:
        """A party let it wait."""
        self.problem = problem
        self._until = max(self._until, self.clock() + (BUSY if after is None else after))

    def served(self, rows: int) -> None:
        self.rows += rows
        if not self.resting:
            self.problem, self.trusty, self._rest = "", True, 0.0
