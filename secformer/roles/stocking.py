"""`secformer deal`: fills the store of party 1 ahead of time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from secformer.models.data.batch import blind_batch
from secformer.models.run.progress import Progress, silent
from secformer.models.run.served import PartyModel
from secformer.models.run.share_file import ShareFile
from secformer.mpc.backend import choose_backend
from secformer.mpc.dealer.locking import Lock
from secformer.mpc.dealer.shelved import run_bytes
from secformer.mpc.dealer.store import Store, writing
from secformer.mpc.errors import InputError, SettingsError, StoreError
from secformer.mpc.kernels import NumpyKernels
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.party import Party
from secformer.mpc.sessions.secure import SecureSession
from secformer.roles.dealing import DealerClient
from secformer.roles.settings import PartySettings
from secformer.roles.storing import store_runs

POLL = 0.02  # seconds between attempts to write into a store that is being filled


@dataclass(frozen=True)
class Stocked:
    """What `stock` did: runs added, runs of this plan now in the store, bytes per run, and what stopped it early."""

    plan: str
    lengths: tuple[int, ...]
    added: int
    left: int
    run_bytes: int
    problem: str


def stock(settings: PartySettings, lengths: Sequence[int], count: int, tell: Progress = silent) -> Stocked:
    """Asks the dealer for the corrections of `count` requests whose texts have these lengths, and stores them.

    Raises SettingsError, InputError, PeerLost if the dealer is unreachable, Desync if a party has not joined the epoch
    yet, StoreError if no run could be stored or another process is storing some.
    """
    if settings.rank != 1:
        raise SettingsError("only party 1 receives and stores corrections; run this with party 1's settings")
    share = ShareFile(settings.model)
    most = share.public.inputs.longest
    if count < 1 or not lengths or not all(1 <= n <= most for n in lengths):
        raise InputError(f"the count must be at least 1 and each length 1 to {most} tokens; got {count} and "
                         f"{list(lengths)}")
    kernels = NumpyKernels(choose_backend("numpy"))
    model = PartyModel(share.public, SecureSession(Party(1, share.public.fixed, kernels)))
    sizes = np.array(lengths)
    plan = model.plan(blind_batch(sizes, np.arange(sizes.max()) < sizes[:, None]))
    dealer = DealerClient(settings.dealer, Credentials(settings.tls).client(), share.public.digest, model.provisioning,
                          deadline=settings.deadline)
    with ExitStack() as ends:
        ends.callback(dealer.close)
        epoch = dealer.join(patience=settings.dealer_wait, runs=False)
        store = Store(settings.store, epoch.seeds[1], epoch.name)
        ends.enter_context(_writing(settings))
        tell("storing", 0, count)
        written = store_runs(store, settings.state, dealer, epoch, plan, count, patience=settings.dealer_wait,
                             told=lambda done: tell("storing", done, count))
    return Stocked(plan.digest, tuple(lengths), written.runs, store.left().get(plan.digest, 0), run_bytes(plan),
                   written.problem)


def _writing(settings: PartySettings) -> Lock:
    """The lock of the store. The party's own filler holds it for a piece at a time, so this waits for a while."""
    end = time.monotonic() + settings.dealer_wait
    while True:
        try:
            return writing(settings.store)
        except StoreError:
            if not settings.ahead_mb or time.monotonic() >= end:
                raise
            time.sleep(POLL)
