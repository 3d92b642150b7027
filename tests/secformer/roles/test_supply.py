"""A party's correlated randomness: which epoch it has, where material comes from, and that no serial serves twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from links_lab import MODEL, PLAN, WEIGHTS

from secformer.mpc.dealer.store import SPACE
from secformer.mpc.errors import Desync, PeerLost, ProtocolError, ReusedRandomness
from secformer.roles import supply as module
from secformer.roles.epochs import LIVE, Epoch
from secformer.roles.settings import PartySettings, load_party
from secformer.roles.supply import Supply

EPOCH = Epoch("0f" * 16, {1: bytes(32)})
NEXT = Epoch("1f" * 16, {1: bytes(range(32))})


class Corrections:
    closed = False

    def close(self) -> None:
        self.closed = True


class Dealer:
    """Stands for `DealerClient`: answers with what it holds; None is a dealer that is away."""

    epoch: Epoch | None = EPOCH
    serial = 0
    corrections = Corrections()

    def __call__(self, *args: Any, **kwargs: Any) -> Dealer:
        return self

    def join(self, *, patience: float) -> Epoch:
        if self.epoch is None:
            raise PeerLost("the dealer does not answer")
        return self.epoch

    def deal(self, epoch: Epoch, space: str, after: int, plan: Any, *, patience: float,
             cache: str | None) -> tuple[int, Corrections]:
        self.asked, self.cache = (epoch, space, after, plan), cache
        if self.epoch is None:
            raise PeerLost("the dealer does not answer")
        return self.serial, self.corrections


@pytest.fixture
def settings(roles: Path, tmp_path: Path) -> PartySettings:
    return replace(load_party(roles / "party1" / "party1.toml"), state=tmp_path / "state", store=tmp_path / "store")


@pytest.fixture
def dealer(monkeypatch: pytest.MonkeyPatch) -> Dealer:
    dealer = Dealer()
    dealer.corrections = Corrections()
    monkeypatch.setattr(module, "DealerClient", dealer)
    return dealer


@contextmanager
def started(settings: PartySettings) -> Iterator[Supply]:
    """A party's supply, in a new process as it were."""
    with closing(Supply(settings, MODEL, WEIGHTS)) as supply:
        supply.join()
        yield supply


@pytest.fixture
def supply(settings: PartySettings, dealer: Dealer) -> Iterator[Supply]:
    with started(settings) as supply:
        yield supply


def test_an_epoch_is_kept_for_the_time_when_the_dealer_is_away(settings: PartySettings, dealer: Dealer) -> None:
    dealer.epoch = None
    with pytest.raises(PeerLost), started(settings):
        pass
    dealer.epoch = EPOCH
    with started(settings):
        pass
    dealer.epoch = None
    with started(settings) as later:
        assert later.epoch == EPOCH and later.seed == EPOCH.seeds[1]


def test_nothing_is_taken_before_an_epoch_is_joined(settings: PartySettings, dealer: Dealer) -> None:
    with closing(Supply(settings, MODEL, WEIGHTS)) as supply:
        for use in (lambda: supply.epoch, supply.last, lambda: supply.take(PLAN, {}), lambda: supply.burn(LIVE, 0)):
            with pytest.raises(ProtocolError, match="not joined"):
                use()


def test_a_new_epoch_replaces_the_old_one(settings: PartySettings, dealer: Dealer, supply: Supply) -> None:
    assert not supply.outdated()
    dealer.epoch = NEXT
    assert supply.outdated() and supply.epoch == EPOCH
    supply.join()
    assert supply.epoch == NEXT and not supply.outdated()
    dealer.epoch = None
    assert not supply.outdated(), "a dealer that is away has begun nothing"
    with started(settings) as later:
        assert later.epoch == NEXT


def test_another_partys_seed_is_refused(supply: Supply, dealer: Dealer) -> None:
    dealer.epoch = Epoch("2f" * 16, {0: bytes(32)})
    with pytest.raises(ProtocolError, match="another party's seed; check which certificate"):
        supply.join()
    assert supply.epoch == EPOCH


def test_live_material_comes_above_what_either_party_has_used(supply: Supply, dealer: Dealer) -> None:
    dealer.serial = 7
    assert supply.take(PLAN, {LIVE: 6}) == (LIVE, 7, dealer.corrections)
    assert dealer.asked == (EPOCH, LIVE, 6, PLAN) and supply.last() == {LIVE: 7}
    dealer.serial = 8
    supply.take(PLAN, {LIVE: 3})
    assert dealer.asked == (EPOCH, LIVE, 7, PLAN)


def test_a_serial_that_comes_twice_is_refused(supply: Supply, dealer: Dealer, settings: PartySettings) -> None:
    supply.take(PLAN, {})
    with pytest.raises(ReusedRandomness):
        supply.take(PLAN, {})
    assert dealer.corrections.closed
    with started(settings) as later, pytest.raises(ReusedRandomness):
        later.burn(LIVE, 0)


def test_what_is_stored_is_taken_first(supply: Supply, dealer: Dealer, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[Any] = [(4, Corrections()), None]
    monkeypatch.setattr(module.Store, "take", lambda self, plan: stored.pop(0))
    space, serial, _ = supply.take(PLAN, {})
    assert (space, serial) == (SPACE, 4) and not hasattr(dealer, "asked")
    assert supply.take(PLAN, {})[0] == LIVE and dealer.cache is None
    assert supply.left() == {}


@pytest.mark.parametrize("cache", ["", "live/3"])
def test_what_takes_a_cache_never_comes_from_the_store(supply: Supply, dealer: Dealer, monkeypatch: pytest.MonkeyPatch,
                                                       cache: str) -> None:
    monkeypatch.setattr(module.Store, "take", lambda self, plan: (4, Corrections()))
    assert supply.take(PLAN, {}, cache)[0] == LIVE and dealer.cache == cache


def test_stored_serials_come_in_any_order_live_ones_ascend(supply: Supply) -> None:
    for serial in (5, 2, 9):
        supply.burn(SPACE, serial)
    supply.burn(LIVE, 5)
    for space, serial in ((SPACE, 2), (LIVE, 5), (LIVE, 2)):
        with pytest.raises(ReusedRandomness):
            supply.burn(space, serial)
    with pytest.raises(Desync, match="the other party names the space 'other'; the spaces are live and"):
        supply.burn("other", 1)


def test_without_the_dealer_and_without_a_store(supply: Supply, dealer: Dealer) -> None:
    dealer.epoch = None
    with pytest.raises(PeerLost):
        supply.take(PLAN, {})
    assert supply.last() == {LIVE: -1}
