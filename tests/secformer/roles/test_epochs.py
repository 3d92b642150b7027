"""Epochs on disk: written before use, read back, private to their owner, one per model and plan."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from secformer.mpc.errors import StoreError
from secformer.roles.epochs import LIVE, NAME_BYTES, Epoch, State, as_note, epoch_of

MODEL, PLAN = "a" * 64, "b" * 64


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with closing(State(tmp_path / "state")) as state:
        yield state


def again(state: State) -> closing[State]:
    """The same folder in the next process."""
    return closing(State(state.folder))


def test_a_fresh_epoch_has_two_seeds_and_outlives_the_process(state: State) -> None:
    assert state.epoch(MODEL, PLAN) is None
    epoch = state.fresh(MODEL, PLAN)
    assert set(epoch.seeds) == {0, 1} and epoch.seeds[0] != epoch.seeds[1] and len(epoch.name) == 2 * NAME_BYTES
    with again(state) as later:
        assert later.epoch(MODEL, PLAN) == epoch
    assert state.epoch("c" * 64, PLAN) is None and state.epoch(MODEL, "c" * 64) is None
    assert state.fresh(MODEL, PLAN) != epoch


def test_files_are_their_owners_alone(state: State) -> None:
    state.fresh(MODEL, PLAN)
    (file,) = state.folder.glob("epoch-*")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_used_serials_lie_beside_the_epochs(state: State) -> None:
    state.serials.burn("epoch", LIVE, 3)
    with again(state) as later:
        assert later.serials.last("epoch", LIVE) == 3


def test_a_party_is_told_its_own_seed_alone() -> None:
    epoch = Epoch("0f" * NAME_BYTES, {0: bytes(32), 1: bytes(range(32))})
    assert epoch_of(as_note(epoch)) == epoch
    assert as_note(epoch, 1) == {"epoch": epoch.name, "seeds": {"1": bytes(range(32)).hex()}}


@pytest.mark.parametrize("broken", [
    "", "[]", "{", {"epoch": "0f"}, {"seeds": {"0": "00"}}, {"epoch": "x" * 32}, {"seeds": {"0": "zz" * 32}},
    {"seeds": 3}, {"epoch": None},
])
def test_a_broken_file_says_what_to_do(state: State, broken: Any) -> None:
    good = as_note(state.fresh(MODEL, PLAN))
    (file,) = state.folder.glob("epoch-*")
    file.write_text(broken if isinstance(broken, str) else json.dumps(good | broken))
    with pytest.raises(StoreError, match=r"epoch-.* cannot be read .*remove it to start a new epoch"):
        state.epoch(MODEL, PLAN)
