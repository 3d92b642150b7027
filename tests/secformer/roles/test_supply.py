"""A party's correlated randomness: which epoch it has, where material comes from, and that no serial serves twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from links_lab import MODEL, PLAN, WEIGHTS

from secformer.mpc.dealer.names import LIVE, NO_NONCE, STORED, run_name
from secformer.mpc.dealer.seeds import DEPTH, Seeds
from secformer.mpc.dealer.store import Shelf, Taken
from secformer.mpc.errors import Desync, PeerLost, ProtocolError, ReusedRandomness, StoreError
from secformer.roles import supply as module
from secformer.roles.epochs import Epoch, as_note, epoch_of
from secformer.roles.settings import PartySettings, load_party
from secformer.roles.supply import Supply

NONCE, MINE = bytes(16), bytes(range(16))


def epoch(name: str, rank: int = 1) -> Epoch:
    """An epoch as the dealer gives it to a party: all seeds of runs are left."""
    def left() -> dict[str, dict[int, Seeds]]:
        return {space: {rank: Seeds({(0, DEPTH): bytes(range(32))})} for space in (LIVE, STORED)}

    return Epoch(name * 16, {rank: bytes(32)}, left())


EPOCH, NEXT = epoch("0f"), epoch("1f")


def seed_of(serial: int) -> bytes:
    return epoch("0f").runs[LIVE][1].take(serial)


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

    def join(self, *, patience: float, runs: bool = True) -> Epoch:
        if self.epoch is None:
            raise PeerLost("the dealer does not answer")
        return epoch_of(as_note(self.epoch, runs=runs))

    def rest(self) -> None: ...

    def close(self) -> None: ...

    def deal(self, epoch: Epoch, space: str, after: int, plan: Any, *, nonces: tuple[bytes, bytes], patience: float,
             cache: str | None, kept: Any, request: str, trace: str) -> tuple[int, Corrections]:
        self.asked, self.cache, self.nonces, self.kept = (epoch, space, after, plan), cache, nonces, kept
        self.request = request
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
        for use in (lambda: supply.epoch, supply.last, lambda: supply.take(PLAN, {}, NONCE), supply.stored,
                    lambda: supply.burn(LIVE, 0, (NONCE, MINE), PLAN)):
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
    supply.close()
    with started(settings) as later:
        assert later.epoch == NEXT


def test_a_dealer_that_refuses_ends_no_epoch_of_a_party_that_serves(supply: Supply, dealer: Dealer,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**kwargs: Any) -> Epoch:
        raise Desync("the dealer runs version 9.8.7")

    monkeypatch.setattr(dealer, "join", refuse)
    supply.join(again=True)
    assert supply.epoch == EPOCH and not supply.outdated()
    with pytest.raises(Desync, match=r"9\.8\.7"):
        supply.join()


def test_what_was_stored_goes_with_its_epoch(supply: Supply, dealer: Dealer, settings: PartySettings) -> None:
    """Whether it lies there when the party joins the next one, or comes later. What is of an epoch that the party
    knows stays, and so do files of another version."""
    def shelf(name: str) -> Path:
        header = Shelf(1, 0, 0, 0, name * 16, "ab" * 32, bytes(16))
        path = settings.store / f"{name}.store"
        path.write_bytes(header.packed())
        return path

    other, old = settings.store / "other.store", shelf("0f")
    other.write_bytes(b"SFST of another version")
    supply.rest()
    assert old.exists() and other.exists()
    other.unlink()
    dealer.epoch = NEXT
    supply.join()
    assert not old.exists()
    late, new = shelf("0f"), shelf("1f")
    supply.rest()
    assert new.exists() and not late.exists()


def test_another_partys_seed_is_refused(supply: Supply, dealer: Dealer) -> None:
    dealer.epoch = epoch("2f", 0)
    with pytest.raises(ProtocolError, match="another party's seed; check which certificate"):
        supply.join()
    assert supply.epoch == EPOCH


def test_live_material_comes_above_what_either_party_has_used(supply: Supply, dealer: Dealer) -> None:
    dealer.serial = 7
    found = supply.take(PLAN, {LIVE: 6}, NONCE, kept=("a",))
    assert (found.space, found.serial, found.corrections) == (LIVE, 7, dealer.corrections) and dealer.kept == ("a",)
    assert dealer.asked == (EPOCH, LIVE, 6, PLAN) and supply.last() == {LIVE: 7}
    dealer.serial = 8
    supply.take(PLAN, {LIVE: 3}, NONCE)
    assert dealer.asked == (EPOCH, LIVE, 7, PLAN)


def test_a_serial_that_comes_twice_is_refused(supply: Supply, dealer: Dealer, settings: PartySettings) -> None:
    supply.take(PLAN, {}, NONCE)
    with pytest.raises(ReusedRandomness):
        supply.take(PLAN, {}, NONCE)
    assert dealer.corrections.closed
    supply.close()
    with started(settings) as later, pytest.raises(ReusedRandomness):
        later.burn(LIVE, 0, (NONCE, MINE), PLAN)


def test_what_is_stored_is_taken_first(supply: Supply, dealer: Dealer, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[Any] = [Taken(4, MINE, Corrections()), None]  # type: ignore[arg-type]
    monkeypatch.setattr(module.Store, "take", lambda self, plan: stored.pop(0))
    found = supply.take(PLAN, {}, NONCE)
    assert (found.space, found.serial, found.nonce) == (STORED, 4, MINE) and not hasattr(dealer, "asked")
    assert found.key.name == run_name(EPOCH.name, STORED, 4, (NO_NONCE, MINE), PLAN.digest)
    assert supply.stored()[0] == (0, 4) and supply.stored()[1][0] == 5
    assert supply.take(PLAN, {}, NONCE).space == LIVE and dealer.cache is None
    assert supply.left() == {}


@pytest.mark.parametrize("cache", ["", "live/3"])
def test_what_takes_a_cache_never_comes_from_the_store(supply: Supply, dealer: Dealer, monkeypatch: pytest.MonkeyPatch,
                                                       cache: str) -> None:
    monkeypatch.setattr(module.Store, "take", lambda self, plan: Taken(4, MINE, Corrections()))  # type: ignore[arg-type]
    assert supply.take(PLAN, {}, NONCE, cache).space == LIVE and dealer.cache == cache


def test_stored_serials_come_in_any_order_live_ones_ascend(supply: Supply) -> None:
    for serial in (5, 2, 9):
        supply.burn(STORED, serial, (NONCE, MINE), PLAN)
    supply.burn(LIVE, 5, (NONCE, MINE), PLAN)
    for space, serial in ((STORED, 2), (LIVE, 5), (LIVE, 2)):
        with pytest.raises(ReusedRandomness):
            supply.burn(space, serial, (NONCE, MINE), PLAN)
    with pytest.raises(Desync, match="the other party names the space 'other'; the spaces are live and"):
        supply.burn("other", 1, (NONCE, MINE), PLAN)


def test_without_the_dealer_and_without_a_store(supply: Supply, dealer: Dealer) -> None:
    dealer.epoch = None
    with pytest.raises(PeerLost):
        supply.take(PLAN, {}, NONCE)
    assert supply.last() == {LIVE: -1}


# ---- names and seeds of runs -----------------------------------------------------------------------------------------


def test_both_nonces_are_in_the_name_and_ones_own_is_fresh(supply: Supply, dealer: Dealer) -> None:
    names = set()
    for serial in range(3):
        dealer.serial = serial
        found = supply.take(PLAN, {}, NONCE)
        assert dealer.nonces == (NONCE, found.nonce) and len(found.nonce) == 16
        assert found.key.name == run_name(EPOCH.name, LIVE, serial, (NONCE, found.nonce), PLAN.digest)
        assert found.key.seed == seed_of(serial)
        names.add(found.nonce)
    assert len(names) == 3


def test_a_used_seed_is_on_no_disk_and_in_no_memory(supply: Supply, dealer: Dealer, settings: PartySettings) -> None:
    dealer.serial = 3
    supply.take(PLAN, {}, NONCE)
    supply.erase()
    (file,) = settings.state.glob("epoch-*.json")
    state = epoch_of(json.loads(file.read_text()))
    for held in (state, supply.epoch):
        assert held.left(LIVE)[0][0] == 4, "those below are gone, too"
        with pytest.raises(ReusedRandomness):
            held.runs[LIVE][1].take(3)
    assert state.runs[LIVE][1].take(4) == seed_of(4)


def test_a_process_that_dies_before_it_erases_leaves_it_to_the_next(supply: Supply, dealer: Dealer,
                                                                    settings: PartySettings) -> None:
    before = {path: path.read_bytes() for path in settings.state.glob("epoch-*.json")}
    supply.take(PLAN, {}, NONCE)
    supply.burn(STORED, 6, (NONCE, MINE), PLAN)
    supply.close()
    for path, raw in before.items():
        path.write_bytes(raw)
    with started(settings):
        (file,) = before
        state = epoch_of(json.loads(file.read_text()))
        assert state.left(LIVE)[0][0] == 1 and state.left(STORED)[0] == (0, 6)


def test_a_party_that_joins_again_keeps_no_seed_that_the_dealer_has_dealt(supply: Supply, dealer: Dealer) -> None:
    ahead = epoch("0f")
    ahead.runs[LIVE][1].drop(0, 9)
    dealer.epoch = ahead
    supply.join()
    assert supply.last() == {LIVE: 8} and supply.epoch.left(LIVE)[0][0] == 9


def test_another_process_on_the_same_folders_is_refused(supply: Supply, settings: PartySettings, dealer: Dealer,
                                                        tmp_path: Path) -> None:
    for other in (settings, replace(settings, state=tmp_path / "elsewhere"), replace(settings, store=tmp_path / "new")):
        with pytest.raises(StoreError, match="is in use by process"):
            Supply(other, MODEL, WEIGHTS)
    replaced = replace(settings, state=tmp_path / "elsewhere", store=tmp_path / "new")
    with started(replaced):
        pass


@pytest.mark.parametrize("left", [[], [(0, 4), (5, 99)], [(5, 99)], [(0, 6)]])
def test_a_store_whose_seeds_are_gone_stops_the_operator(supply: Supply, monkeypatch: pytest.MonkeyPatch,
                                                         left: list[tuple[int, int]]) -> None:
    monkeypatch.setattr(module.Store, "ranges", lambda self: [(Path("x.store"), 4, 7)])
    supply.check([(0, 99)], "this party")
    with pytest.raises(StoreError, match=r"x\.store would give out runs from stored serial 4 on, but party0 has used"):
        supply.check(left, "party0")


def test_a_restored_store_stops_its_own_party(settings: PartySettings, supply: Supply, dealer: Dealer,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    supply.burn(STORED, 5, (NONCE, MINE), PLAN)
    monkeypatch.setattr(module.Store, "ranges", lambda self: [(Path("x.store"), 4, 7)])
    with pytest.raises(StoreError, match=r"this party has used, or lost, .*remove the files of the store, and deal"):
        supply.join()


def test_no_request_takes_masks_of_weights(supply: Supply) -> None:
    with pytest.raises(ReusedRandomness, match="masks of weights, which serve no request"):
        supply.burn(LIVE, 0, (NONCE, MINE), WEIGHTS)
    assert supply.last() == {LIVE: -1}
