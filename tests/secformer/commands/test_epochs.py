"""The command epoch: what it prints, and what it refuses. With real roles: `roles/test_rotation.py`."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest
from commands_lab import complaint, help_of
from roles_lab import until

from secformer.cli import main
from secformer.roles.certificates import init
from secformer.roles.epochs import State
from secformer.roles.rotation import ORDER, Rotation

MODEL = "ab" * 32


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    init(folder := tmp_path / "roles")
    return folder / "dealer" / "dealer.toml"


def test_old_and_new_names_are_printed(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(State(settings.parent / "state")) as state:
        old = state.fresh(MODEL, "p")

        def dealer() -> None:
            until((state.folder / ORDER).exists)
            list(Rotation(state, 0).replaced())

        thread = threading.Thread(target=dealer)
        thread.start()
        assert main(["epoch", "rotate", "--settings", str(settings)]) == 0
        thread.join()
        new = state.epoch(MODEL, "p")
    out = capsys.readouterr().out
    assert new is not None and MODEL[:16] in out and old.name in out and new.name in out and "by themselves" in out
    assert not any(seed.hex() in out for epoch in (old, new) for seed in epoch.seeds.values())


def test_what_it_refuses(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no epochs" in complaint(capsys, "epoch", "rotate", "--settings", str(settings))
    party = settings.parent.parent / "party0" / "party0.toml"
    assert "unknown key 'rank'" in complaint(capsys, "epoch", "rotate", "--settings", str(party))


def test_help_says_what_becomes_of_sessions(capsys: pytest.CaptureFixture[str]) -> None:
    assert "sessions of generated texts end" in help_of(capsys, "epoch")
