"""A party's correlated randomness: the epoch that it has joined, its store, the dealer, and which serials are used."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from secformer.mpc.dealer.names import LIVE, NO_NONCE, STORED, RunKey, fresh_nonce, run_name
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.store import Store, reading
from secformer.mpc.errors import PeerLost, ProtocolError, ReusedRandomness, SecformerError, StoreError
from secformer.mpc.net.channel import Buffer, Channel
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.net.tls import Context
from secformer.roles.dealing import JOIN_PATIENCE, DealerClient
from secformer.roles.epochs import Epoch, State, space_of
from secformer.roles.precedence import Precedence
from secformer.roles.settings import PartySettings


@dataclass(frozen=True)
class Supplied:
    """Material for one run: its space and serial, which is now burnt, party 1's nonce, the run's key, and the channel
    of corrections."""

    space: str
    serial: int
    nonce: bytes = field(repr=False)
    key: RunKey
    corrections: Channel


class Supply:
    """One party's supply for one provisioned model. Not thread-safe. No other process has its folders.

    model    the model's digest
    weights  the plan of provisioning
    buffer   makes what corrections are received into, where the party has memory of its own for that
    context  for connections to the dealer; by default, of the settings' certificate

    `client()` makes a further way to the dealer, which any thread may use. `precedence` counts the runs that the dealer
    is sending for requests.
    """

    def __init__(self, settings: PartySettings, model: str, weights: Plan, buffer: Buffer | None = None,
                 context: Context | None = None):
        """Raises StoreError while another process has the state or the store."""
        self._buffer = buffer
        self._rank, self._folder, self._patience = settings.rank, settings.store, settings.dealer_wait
        self._model, self._weights = model, weights.digest
        self._state = State(settings.state)
        try:
            self._reading = reading(settings.store) if settings.rank == 1 else None
        except BaseException:
            self._state.close()
            raise
        self.precedence = Precedence()
        self.client = partial(DealerClient, settings.dealer, context or Credentials(settings.tls).client(), model,
                              weights, deadline=settings.deadline, silence=settings.dealer_wait)
        self._dealer = self.client(most=settings.in_flight, precedence=self.precedence)
        self._epoch: Epoch | None = None

    @property
    def epoch(self) -> Epoch:
        """The epoch that the party has joined. Raises ProtocolError if it has not joined one."""
        if self._epoch is None:
            raise ProtocolError("this party has not joined an epoch")
        return self._epoch

    @property
    def joined(self) -> Epoch | None:
        """The epoch that the party has joined, if it has joined one. Any thread may ask."""
        return self._epoch

    @property
    def seed(self) -> bytes:
        """The party's seed of the masks of the weights."""
        return self.epoch.seeds[self._rank]

    def join(self, again: bool = False) -> None:
        """Learns the epoch: from the dealer or, while the dealer is unreachable, from disk. A party that serves and
        joins `again` stays in its epoch, too, if the dealer refuses it: its store may still serve.

        Raises PeerLost if neither knows one, ProtocolError if the dealer gives another party's seed, StoreError as
        `check`.
        """
        known = self._state.epoch(self._model, self._weights)
        try:
            epoch = self._dealer.join(patience=JOIN_PATIENCE if known else self._patience)
        except ProtocolError as error:
            if known is None or not (again or isinstance(error, PeerLost)):
                raise
            epoch = known
        if set(epoch.seeds) != {self._rank} or not epoch.runs:
            raise ProtocolError("the dealer gave another party's seed; check which certificate this party shows")
        if known is None or epoch != known:
            self._state.keep(self._model, self._weights, epoch)
            known = epoch
        elif epoch is not known and (left := epoch.left(LIVE)):
            self._state.meet(known, left[0][0])
        self._epoch = known
        self._discard()
        self.check(known.left(STORED), "this party")

    def outdated(self) -> bool:
        """Whether the dealer has begun a new epoch: see `rotation`; or it has lost its state. Any thread may ask."""
        try:
            return self._dealer.join(patience=JOIN_PATIENCE, runs=False) != self._epoch
        except (SecformerError, OSError):
            return False

    def last(self) -> dict[str, int]:
        """The last used serial of live runs, by space."""
        return {LIVE: self._state.last(self.epoch, LIVE)}

    def stored(self) -> list[tuple[int, int]]:
        """The serials of stored runs whose seeds this party still has, as ranges: the first, and the one after the
        last."""
        return self.epoch.left(STORED)

    def check(self, left: Sequence[tuple[int, int]], whose: str) -> None:
        """Compares the store with the seeds of stored runs that a party has left. Raises StoreError if one is gone."""
        for path, first, end in self._store().ranges():
            if not any(a <= first and end <= b for a, b in left):
                raise StoreError(f"{path} would give out runs from stored serial {first} on, but {whose} has used, or "
                                 f"lost, the seeds of some of them. Either the store was restored from a backup, or a "
                                 f"state folder was removed or restored. Stop this party, remove the files of the "
                                 f"store, and deal again")

    def take(self, plan: Plan, others: Mapping[str, int], nonce: bytes, cache: str | None = None,
             kept: Collection[str] = (), request: str = "", trace: str = "") -> Supplied:
        """Material for one run of a plan, from the store or else from the dealer. `others` is what the other party's
        `last` returned, `nonce` is its nonce. What takes a `cache`, by the name of the run that opened it or "" for the
        run itself, always comes from the dealer: a store's runs were dealt before there was one. The dealer then
        forgets all caches that are not `kept`. It learns the ids of the request and of its trace, for
        its logs.

        Raises PeerLost, Desync, StoreError, ReusedRandomness, OSError.
        """
        if cache is None and (found := self._store().take(plan)) is not None:
            space, serial, mine, corrections = STORED, found.serial, found.nonce, found.corrections
        else:
            space, mine, after = LIVE, fresh_nonce(), max(others.get(LIVE, -1), self.last()[LIVE])
            serial, corrections = self._dealer.deal(self.epoch, LIVE, after, plan, nonces=(nonce, mine),
                                                    patience=self._patience, cache=cache, kept=kept,
                                                    request=request, trace=trace)
        if self._buffer is not None:
            corrections.buffer = self._buffer
        try:
            key = self.burn(space, serial, (nonce, mine), plan)
        except BaseException:
            corrections.close()
            raise
        return Supplied(space, serial, mine, key, corrections)

    def burn(self, space: str, serial: int, nonces: tuple[bytes, bytes], plan: Plan) -> RunKey:
        """Marks a serial as used, and gives its run's key, which is not kept. Stored serials come in the order in which
        requests ask for their plans, live ones in ascending order. Raises ReusedRandomness for one that was used
        before, Desync for an unknown space."""
        stored = space_of(space) == STORED
        if plan.standing:
            raise ReusedRandomness("the plan of a request has masks of weights, which serve no request")
        seed = self._state.burn(self.epoch, space, serial, alone=stored)[self._rank].take(serial)
        nonces = (NO_NONCE, nonces[1]) if stored else nonces
        return RunKey(run_name(self.epoch.name, space, serial, nonces, plan.digest), seed)

    def erase(self) -> None:
        """Takes the seeds of used serials off the disk."""
        self._state.erase()

    def rest(self) -> None:
        """Hangs up on the dealer where nothing was asked for a while. Call it while nothing waits."""
        self._dealer.rest()
        self._discard()  # `secformer deal` may have been storing while an epoch ended

    def _discard(self) -> None:
        """Removes stored material of epochs whose seeds this party does not have any more. What stays where that fails
        is of no use either, and does no harm."""
        if self._reading is not None:
            with suppress(StoreError, OSError):
                self._store().keep_only({epoch.name for _, _, epoch in self._state.epochs()})

    def left(self) -> dict[str, int]:
        """How many runs the store has material for, by plan. Raises StoreError for an unreadable store."""
        return self._store().left()

    def close(self) -> None:
        """Hangs up on the dealer, closes the files, and lets another process have the folders. Nothing can be taken any
        more."""
        self._dealer.close()
        self._state.close()
        if self._reading is not None:
            self._reading.close()

    def _store(self) -> Store:
        return Store(self._folder, self.seed, self.epoch.name)
