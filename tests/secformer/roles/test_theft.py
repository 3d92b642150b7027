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
from theft_lab import Recorded, recorded, stolen, tried

from secformer.mpc.errors import ReusedRandomness
from secformer.roles.epochs import Epoch, State

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
