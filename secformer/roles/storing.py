"""Runs from the dealer into party 1's store: for `secformer deal`, and for the party that fills its store by itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from secformer.mpc.dealer.names import NO_NONCE, STORED, fresh_nonce
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.serials import Serials
from secformer.mpc.dealer.store import Store, Written
from secformer.mpc.net.wire import Tag
from secformer.roles.dealing import DealerClient
from secformer.roles.epochs import JOURNAL, Epoch


def store_runs(store: Store, state: Path, dealer: DealerClient, epoch: Epoch, plan: Plan, count: int, *,
               patience: float, before: Callable[[], None] = lambda: None,
               told: Callable[[int], None] = lambda done: None, ahead: bool = False) -> Written:
    """Asks the dealer for `count` runs of a plan, with serials above all that this party has met, and writes them. The
    caller holds the store's `writing` lock.

    state   the party's state folder, whose journal another process or thread may be writing
    before  called before each correction is received; what it raises ends the writing, and whole runs are kept

    Raises PeerLost, Desync, StoreError, OSError.
    """
    nonce = fresh_nonce()
    after = max(store.last(), Serials.last_in(state / JOURNAL, epoch.name, STORED))
    first, channel = dealer.deal(epoch, STORED, after, plan, nonces=(NO_NONCE, nonce), count=count, patience=patience)

    def receive(tag: Tag, nbytes: int) -> Any:
        before()
        return channel.receive(tag, nbytes)

    with closing(channel):
        return store.write(plan, first, count, nonce, lambda serial: receive, told, ahead)
