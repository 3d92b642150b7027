"""Files of roles: who may read them, and what a write that fails leaves behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from secformer.mpc.dealer.files import owner_only, rewrite


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "file.log"


@pytest.mark.parametrize("mode", ["a", "w", "x"])
def test_a_file_for_its_owner_alone(path: Path, mode: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if mode != "x":  # an older version made it
        path.write_text("before")
        path.chmod(0o644)
    with open(path, mode, opener=owner_only) as file:
        assert path.stat().st_mode & 0o777 == 0o600
        file.write("now")
    assert path.read_text() == ("beforenow" if mode == "a" else "now")


def test_a_file_that_is_rewritten_is_its_owner_s_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("before")
    path.chmod(0o644)
    for content in ("now", ""):
        rewrite(path, content)
        assert path.read_text() == content and path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_write_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leaves behind does not hinder the next one."""
    path.parent.mkdir()
    rewrite(path, "before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            rewrite(path, "now")
    assert path.read_text() == "before"
    rewrite(path, "now")
    assert path.read_text() == "now"
