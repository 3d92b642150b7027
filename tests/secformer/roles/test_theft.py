"""Forward secrecy: who takes the files of a role and of the dealer opens no request that was recorded before.

The same attack reads every token where seeds are kept, as they were before version 2 of the epochs' files.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engines_lab import Engines
from roles_lab import right, until
from theft_lab import Recorded, last_weight, recorded, recorded_opening, stolen, tried, tried_weight

from secformer.mpc.errors import ReusedRandomness
from secformer.roles.epochs import Epoch, State
from secformer.roles.rotation import ORDER

TEXT = "A wonderful film."


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    with Engines(tmp_path_factory.mktemp("theft"), in_flight=1) as engines:
        engines.ready()
        yield engines


def asked(up: Engines) -> tuple[Recorded, np.ndarray]:
    """A recorded request, and the ids of its tokens."""
    with pytest.MonkeyPatch.context() as patch:
        engine, channel = up.engines[0], up.channel(0, 0)
        patch.setattr(engine, "begin", engine.begin)  # taken back afterwards
        patch.setattr(channel, "send", channel.send)
        patch.setattr(channel, "receive", channel.receive)
        seen = recorded(engine, channel)
        with up.client() as client:
            out = client.infer(TEXT)
            right(out, TEXT)
            ids = np.asarray(client.tokenizer.rows(TEXT)[0].ids)
    assert seen.name and len(seen.messages) > 100
    return seen, ids


def taken(up: Engines, folder: Path) -> list[Epoch]:
    """Copies of the dealer's state and of both parties', as a thief would make them."""
    found = []
    for role in ("dealer", "party0", "party1"):
        shutil.copytree(up.roles.role_folder(role) / "state", folder / role)
        found.append(stolen(folder / role))
    return found


def test_files_taken_today_open_no_request_of_yesterday(up: Engines, tmp_path: Path) -> None:
    seen, _ = asked(up)
    def erased() -> bool:
        return all(stolen(up.roles.role_folder(role) / "state").left("live")[0][0] > seen.serial
                   for role in ("dealer", "party0", "party1"))

    until(erased)
    epochs = taken(up, tmp_path)
    assert tried(seen, epochs) is None
    for epoch in epochs:
        for seeds in epoch.runs[seen.space].values():
            with pytest.raises(ReusedRandomness):
                seeds.take(seen.serial)


def test_where_seeds_are_kept_the_attack_reads_every_token(up: Engines, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: files that keep the seeds of used serials, as one seed for a whole epoch did."""
    with monkeypatch.context() as patch:
        patch.setattr(State, "erase", lambda self: None)
        seen, ids = asked(up)
        epochs = taken(up, tmp_path)
    x = tried(seen, epochs[:1])  # the dealer's alone
    assert x is not None and x.shape[0] == ids.size
    np.testing.assert_array_equal(x[:, : x.shape[1] - 2].argmax(axis=1), ids)
    assert tried(seen, epochs[1:2]) is None, "a party's own seed opens nothing by itself"
    again, _ = asked(up)  # what was not erased then is erased with the next request
    until(lambda: stolen(up.roles.role_folder("dealer") / "state").left("live")[0][0] > again.serial)
    assert tried(seen, taken(up, tmp_path / "later")) is None


def test_what_runs_leave_in_memory(up: Engines) -> None:
    """No party holds the source of a run that has ended, and no role's live state its seed."""
    seen, _ = asked(up)
    until(lambda: all(party._source is None for engine in up.engines for party in engine._parties))
    for engine in up.engines:
        assert engine._supply.epoch.left(seen.space)[0][0] > seen.serial
    known = [epoch for _, _, epoch in up.dealer._state._known.values()]
    assert known and all(epoch.left(seen.space)[0][0] > seen.serial for epoch in known)


def rotated(up: Engines) -> None:
    """A new epoch, which both parties have joined; and an old one that is nowhere any more."""
    old = up.reports[0].epoch
    (up.roles.role_folder("dealer") / "state" / ORDER).touch()
    up.dealer.tend()
    with up.client() as client:
        right(client.infer(TEXT), TEXT)
    until(lambda: up.reports[0].epoch == up.reports[1].epoch != old)


def test_what_a_theft_opens_of_an_epoch_before_and_after_it_ends(up: Engines, tmp_path: Path) -> None:
    """Files that are stolen while an epoch lasts open its weights and its next request: the control. Files that are
    stolen after it has ended open neither, and older ones open nothing of the new epoch."""
    plan, words = up.engines[0]._model.provisioning, last_weight(up.engines)
    first = recorded_opening(up.engines[0])
    rotated(up)
    before = taken(up, tmp_path / "before")
    next_request, ids = asked(up)
    first = list(first)
    assert tried_weight(first, plan, before[:1], words), "the dealer's file has the masks of the weights"
    x = tried(next_request, before)
    assert x is not None and np.array_equal(x[:, : x.shape[1] - 2].argmax(axis=1), ids)

    second = recorded_opening(up.engines[0])
    rotated(up)
    later, _ = asked(up)
    after = taken(up, tmp_path / "after")
    assert not tried_weight(first, plan, after, words) and tried(next_request, after) is None
    assert not tried_weight(second, plan, before, words) and tried(later, before) is None
    assert tried_weight(second, plan, after, words), "the weights of the epoch that lasts stay as open as they were"
    assert {epoch.name for epoch in before}.isdisjoint(epoch.name for epoch in after)
    names = {epoch.name for epoch in before}
    assert not names & (set(up.dealer._dealers) | set(up.dealer._caches))
    assert not names & {epoch.name for _, _, epoch in up.dealer._state._known.values()}
