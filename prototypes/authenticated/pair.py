"""Both parties as threads of one process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from prototypes.authenticated.dealer import Dealer
from prototypes.authenticated.party import Party
from secformer.mpc.net.channel import Channel, local_pair

Result = TypeVar("Result")


def together(dealer: Dealer, program: Callable[[Party], Result],
             between: Callable[[Channel], Channel] = lambda channel: channel) -> tuple[Result, Result]:
    """What `program` returns at each party. `between` may stand between party 1 and its channel. Where both parties
    fail, party 0's error is raised."""
    ends = local_pair("party 0", "party 1", deadline=10.0)

    def run(rank: int) -> Result:
        end = ends[rank] if rank == 0 else between(ends[rank])
        try:
            return program(Party(dealer.keys[rank], end))
        finally:
            end.close()  # the other party need not wait for one that failed

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(run, 0), pool.submit(run, 1)
        return first.result(), second.result()
