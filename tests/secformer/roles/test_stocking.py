"""What `secformer deal` refuses before it asks the dealer; that it stores is tested with real roles."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from checkpoints import write_checkpoint

from secformer.models.run.provisioning import write_shares
from secformer.models.run.share_file import share_file
from secformer.mpc.dealer.store import writing
from secformer.mpc.errors import InputError, PeerLost, SettingsError, StoreError
from secformer.roles.certificates import init
from secformer.roles.settings import PartySettings, load_party
from secformer.roles.stocking import _writing, stock


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> PartySettings:
    folder = tmp_path_factory.mktemp("stocking")
    write_shares(write_checkpoint(folder / "model", "BertForSequenceClassification"), folder / "shares")
    init(folder / "roles", ports={"dealer": 1})
    return replace(load_party(folder / "roles" / "party1" / "party1.toml"), model=folder / "shares" / share_file(1),
                   dealer_wait=0.2)


def test_party_0_stores_nothing(settings: PartySettings) -> None:
    with pytest.raises(SettingsError, match="only party 1 receives and stores corrections"):
        stock(replace(settings, rank=0), [3], 1)


@pytest.mark.parametrize(("lengths", "count"), [([], 1), ([3], 0), ([0], 1), ([3, 9999], 1), ([-1], 1)])
def test_counts_and_lengths_have_bounds(settings: PartySettings, lengths: list[int], count: int) -> None:
    with pytest.raises(InputError, match="the count must be at least 1 and each length 1 to"):
        stock(settings, lengths, count)


def test_a_dealer_that_is_away(settings: PartySettings) -> None:
    with pytest.raises(PeerLost, match="dealer"):
        stock(settings, [3], 1)
    assert not settings.store.exists()


def test_a_store_that_is_being_filled_is_waited_for(settings: PartySettings) -> None:
    """The party's filler has it for a piece at a time; another `secformer deal` has it for long."""
    filling, lock = replace(settings, ahead_mb=1, dealer_wait=30.0), writing(settings.store)
    with pytest.raises(StoreError, match="is in use by process"):
        _writing(replace(filling, ahead_mb=0))
    with pytest.raises(StoreError, match="is in use by process"):
        _writing(replace(filling, dealer_wait=0.05))
    threading.Timer(0.2, lock.close).start()
    with _writing(filling):
        pass
