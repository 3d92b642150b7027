"""Epochs on disk: written before use, read back, private to their owner, one per model and plan."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from secformer.mpc.dealer.names import LIVE, STORED
from secformer.mpc.errors import ReusedRandomness, StoreError
from secformer.roles.epochs import NAME_BYTES, Epoch, State, as_note, epoch_of, replace

MODEL, PLAN = "a" * 64, "b" * 64


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with closing(State(tmp_path / "state")) as state:
        yield state


def again(state: State) -> closing[State]:
    """The same folder in the next process."""
    state.close()
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
    epoch = state.fresh(MODEL, PLAN)
    state.burn(epoch, LIVE, 3)
    with again(state) as later:
        assert later.serials.last(epoch.name, LIVE) == 3 == later.last(epoch, LIVE)


def test_a_party_is_told_its_own_seed_alone() -> None:
    epoch = Epoch.fresh()
    assert epoch_of(as_note(epoch)) == epoch and as_note(epoch_of(as_note(epoch))) == as_note(epoch)
    mine = as_note(epoch, 1)
    assert mine["seeds"] == {"1": epoch.seeds[1].hex()}
    assert all(set(by_rank) == {"1"} for by_rank in mine["runs"].values()) and set(mine["runs"]) == {LIVE, STORED}
    assert as_note(epoch, 1, runs=False) == mine | {"runs": {}}


@pytest.mark.parametrize("broken", [
    "", "[]", "{", {"epoch": "0f"}, {"seeds": {"0": "00"}}, {"epoch": "x" * 32}, {"seeds": {"0": "zz" * 32}},
    {"seeds": 3}, {"epoch": None}, {"epoch": " " + "0f" * 16}, {"epoch": "0F" * 16}, {"seeds": {" 0": "00" * 32}},
    {"seeds": {"2": "00" * 32}}, {"seeds": {"0": "00 " * 32}}, {"runs": {}}, {"runs": {LIVE: {}}}, {"runs": None},
    {"runs": {LIVE: {"0": [], "1": []}, STORED: {"0": []}}}, {"runs": {LIVE: {"0": [[0, 1, "00"]]}}},
    {"joined": [2]}, {"joined": [True]},
])
def test_a_broken_file_says_what_to_do(state: State, broken: Any) -> None:
    state.fresh(MODEL, PLAN)
    (file,) = state.folder.glob("epoch-*")
    good = json.loads(file.read_text())
    file.write_text(broken if isinstance(broken, str) else json.dumps(good | broken))
    with again(state) as later, \
            pytest.raises(StoreError, match=r"epoch-.* cannot be read .*remove it to start a new epoch"):
        later.epoch(MODEL, PLAN)


@pytest.mark.parametrize("old", [{"format": None}, {"format": "secformer epoch 1"}, {"format": "secformer epoch 9"}])
def test_another_versions_file_is_refused(state: State, old: dict[str, Any]) -> None:
    """Version 1 had no format: name and seeds alone."""
    state.fresh(MODEL, PLAN)
    (file,) = state.folder.glob("epoch-*")
    file.write_text(json.dumps(json.loads(file.read_text()) | old))
    with again(state) as later, pytest.raises(StoreError, match="remove `state` at all three and `store` at party 1"):
        later.epoch(MODEL, PLAN)


@pytest.mark.parametrize(("model", "plan"), [(MODEL[:16] + "c" * 48, PLAN), (MODEL, PLAN[:16] + "c" * 48)])
def test_digests_that_begin_alike_are_told_apart(state: State, model: str, plan: str) -> None:
    state.fresh(MODEL, PLAN)
    with again(state) as later, pytest.raises(StoreError, match="belongs to another model or plan, whose digest"):
        later.epoch(model, plan)


def test_one_process_holds_a_folder(state: State) -> None:
    with pytest.raises(StoreError, match=f"the state folder {state.folder} is in use by process"):
        State(state.folder)


def test_used_seeds_leave_the_disk(state: State) -> None:
    """The old file's blocks are overwritten, not only unlinked: an open handle shows what became of them."""
    epoch = state.fresh(MODEL, PLAN)
    (file,) = state.folder.glob("epoch-*")
    before = file.read_text()
    seeds = epoch_of(json.loads(before)).runs[LIVE][0]
    with file.open("rb") as old:
        got = state.burn(epoch, LIVE, 7, 2)
        assert [got[0].take(s) for s in (7, 8)] == [seeds.take(s) for s in (7, 8)]
        assert file.read_text() == before, "the journal is synced first; the seeds go while the run goes on"
        state.erase()
        assert old.read() == bytes(len(before))
    left = epoch_of(json.loads(file.read_text()))
    assert left.left(LIVE)[0][0] == 9
    for serial in (0, 6, 7, 8):
        with pytest.raises(ReusedRandomness):
            state.burn(left, LIVE, serial)


def test_a_journal_that_is_removed_brings_no_serial_back(state: State) -> None:
    epoch = state.fresh(MODEL, PLAN)
    state.burn(epoch, LIVE, 4)
    state.burn(epoch, STORED, 2, alone=True)
    state.close()
    (state.folder / "serials.log").unlink()
    with closing(State(state.folder)) as later:
        known = later.epoch(MODEL, PLAN)
        assert known is not None and later.last(known, LIVE) == 4
        for space, serial in ((LIVE, 4), (LIVE, 0), (STORED, 2)):
            with pytest.raises(ReusedRandomness):
                later.burn(known, space, serial, alone=space == STORED)
        later.burn(known, STORED, 1, alone=True)


def test_what_a_write_that_fails_leaves(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the old file stays whole, and the next try succeeds."""
    epoch = state.fresh(MODEL, PLAN)
    state.burn(epoch, LIVE, 0)
    (file,) = state.folder.glob("epoch-*")
    before = file.read_text()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            state.erase()
    assert file.read_text() == before
    state.erase()
    assert epoch_of(json.loads(file.read_text())).left(LIVE)[0][0] == 1


def test_a_replaced_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for content in ("first", "second, longer"):
        replace(path, content)
        assert path.read_text() == content and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_written_once_another_process_may_have_the_folder(state: State) -> None:
    """A thread that still deals while its process ends must not put back what the next process has erased."""
    epoch = state.fresh(MODEL, PLAN)
    state.burn(epoch, LIVE, 0)
    state.close()
    with closing(State(state.folder)) as later:
        known = later.epoch(MODEL, PLAN)
        assert known is not None
        later.burn(known, LIVE, 5)
        later.erase()
        state._used.add(epoch.name)
        state.erase()
        (file,) = state.folder.glob("epoch-*")
        assert epoch_of(json.loads(file.read_text())).left(LIVE)[0][0] == 6
