"""A party's correlated randomness: the epoch that it has joined, its store, the dealer, and which serials are used."""

from __future__ import annotations

from collections.abc import Mapping

from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.store import SPACE, Store
from secformer.mpc.errors import Desync, PeerLost, ProtocolError, SecformerError
from secformer.mpc.net.channel import Buffer, Channel
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.net.tls import Context
from secformer.roles.dealing import JOIN_PATIENCE, DealerClient
from secformer.roles.epochs import LIVE, Epoch, State
from secformer.roles.settings import PartySettings


class Supply:
    """One party's supply for one provisioned model. Not thread-safe.

    model    the model's digest
    weights  the plan of provisioning
    buffer   makes what corrections are received into, where the party has memory of its own for that
    context  for connections to the dealer; by default, of the settings' certificate
    """

    def __init__(self, settings: PartySettings, model: str, weights: Plan, buffer: Buffer | None = None,
                 context: Context | None = None):
        self._buffer = buffer
        self._rank, self._folder, self._patience = settings.rank, settings.store, settings.dealer_wait
        self._model, self._weights = model, weights.digest
        self._state = State(settings.state)
        self._dealer = DealerClient(settings.dealer, context or Credentials(settings.tls).client(), model, weights,
                                    deadline=settings.deadline)
        self._epoch: Epoch | None = None

    @property
    def epoch(self) -> Epoch:
        """The epoch that the party has joined. Raises ProtocolError if it has not joined one."""
        if self._epoch is None:
            raise ProtocolError("this party has not joined an epoch")
        return self._epoch

    @property
    def seed(self) -> bytes:
        """The party's seed in its epoch."""
        return self.epoch.seeds[self._rank]

    def join(self) -> None:
        """Learns the epoch: from the dealer or, while the dealer is unreachable, from disk.

        Raises PeerLost if neither knows one, ProtocolError if the dealer gives another party's seed.
        """
        known = self._state.epoch(self._model, self._weights)
        try:
            epoch = self._dealer.join(patience=JOIN_PATIENCE if known else self._patience)
        except PeerLost:
            if known is None:
                raise
            epoch = known
        if self._rank not in epoch.seeds:
            raise ProtocolError("the dealer gave another party's seed; check which certificate this party shows")
        if epoch != known:
            self._state.keep(self._model, self._weights, epoch)
        self._epoch = epoch

    def outdated(self) -> bool:
        """Whether the dealer has begun a new epoch, because it lost its state or somebody removed it."""
        try:
            return self._dealer.join(patience=JOIN_PATIENCE) != self._epoch
        except (SecformerError, OSError):
            return False

    def last(self) -> dict[str, int]:
        """The last used serial of live runs, by space."""
        return {LIVE: self._state.serials.last(self.epoch.name, LIVE)}

    def take(self, plan: Plan, others: Mapping[str, int], cache: str | None = None,
             request: str = "") -> tuple[str, int, Channel]:
        """Material for one run of a plan: its space, its serial, which is now burnt, and the channel of corrections.
        It comes from the store or else from the dealer; `others` is what the other party's `last` returned. What takes
        a `cache`, by the run that opened it or "" for the run itself, always comes from the dealer: a store's runs were
        dealt before there was one. The dealer learns the id of the request, for its logs.

        Raises PeerLost, Desync, StoreError, ReusedRandomness, OSError.
        """
        space, found = SPACE, self._store().take(plan) if cache is None else None
        if found is None:
            space, after = LIVE, max(others.get(LIVE, -1), self.last()[LIVE])
            found = self._dealer.deal(self.epoch, LIVE, after, plan, patience=self._patience, cache=cache,
                                      request=request)
        serial, corrections = found
        if self._buffer is not None:
            corrections.buffer = self._buffer
        try:
            self.burn(space, serial)
        except BaseException:
            corrections.close()
            raise
        return space, serial, corrections

    def burn(self, space: str, serial: int) -> None:
        """Marks a serial as used. Stored serials come in the order in which requests ask for their plans, live ones in
        ascending order. Raises ReusedRandomness for one that was used before, Desync for an unknown space."""
        if space == SPACE:
            self._state.serials.burn_alone(self.epoch.name, space, serial)
        elif space == LIVE:
            self._state.serials.burn(self.epoch.name, space, serial)
        else:
            raise Desync(f"the other party names the space {space!r}; the spaces are {LIVE} and {SPACE}")

    def left(self) -> dict[str, int]:
        """How many runs the store has material for, by plan. Raises StoreError for an unreadable store."""
        return self._store().left()

    def close(self) -> None:
        """Closes the files. Nothing can be taken any more."""
        self._state.close()

    def _store(self) -> Store:
        return Store(self._folder, self.seed, self.epoch.name)
