"""Which cells are drained: several processes at once, files that do not hold. Cost: about 3 processor seconds."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from cells_lab import listed

from secformer.cells.drained import HEADER, LOOK, MOST, Drained, drain, drained, drained_file, resume
from secformer.mpc.errors import SettingsError


def test_drain_and_resume(tmp_path: Path) -> None:
    path = listed(tmp_path, ("a", "b", "c"))
    assert drained(path) == frozenset() and not drained_file(path).exists()
    assert drain(path, "b") == {"b"} == drained(path)
    assert drain(str(path), "a") == {"a", "b"} == drained(str(path))
    assert drained_file(path).read_text() == f"{HEADER}a\nb\n"  # in the order of the list
    assert drain(path, "a") == {"a", "b"}, "to drain twice is allowed"
    assert resume(path, "b") == {"a"} == drained(path)
    assert resume(path, "b") == {"a"}
    assert resume(path, "a") == frozenset() == drained(path)
    assert {each.name for each in tmp_path.iterdir() if each.is_file()} == {"cells.toml", "cells.toml.drained"}


def test_all_cells_may_be_drained(tmp_path: Path) -> None:
    path = listed(tmp_path)
    drain(path, "a")
    assert drain(path, "b") == {"a", "b"}


@pytest.mark.parametrize("change", [drain, resume])
def test_unknown_names_change_nothing(tmp_path: Path, change: object) -> None:
    path = listed(tmp_path)
    drain(path, "a")
    with pytest.raises(SettingsError, match=r"cells.toml lists no cell 'x'; its cells are a, b"):
        change(path, "x")  # type: ignore[operator]
    assert drained(path) == {"a"}


def test_names_that_the_list_has_lost_are_dropped(tmp_path: Path) -> None:
    path = listed(tmp_path, ("a", "b", "c"))
    drain(path, "a")
    listed(tmp_path, ("b", "c"))
    assert drained(path) == {"a"}  # who looks every second does not read the list again
    assert drain(path, "c") == {"c"} == drained(path)


@pytest.mark.parametrize(("content", "says"), [
    (b"a b\n", "'a b' is not the name of a cell"), (b"\xff\n", "it is not UTF-8 text"), (b"-a\n", "'-a' is not"),
    (b"\0", "is not the name"), (b"a\n" * (MOST // 2 + 1), f"it has more than {MOST} bytes"),
])
def test_files_that_do_not_hold(tmp_path: Path, content: bytes, says: str) -> None:
    path = listed(tmp_path)
    drained_file(path).write_bytes(content)
    for ask in (lambda: drained(path), lambda: drain(path, "a"), lambda: Drained(path)):
        with pytest.raises(SettingsError, match=says) as error:
            ask()
        assert str(drained_file(path)) in str(error.value) and "remove it, and drain again" in str(error.value)
    assert drained_file(path).read_bytes() == content


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    path = listed(tmp_path)
    drained_file(path).mkdir()
    with pytest.raises(SettingsError, match=r"cannot read .*drained, which says which cells are drained: Is a dir"):
        drained(path)


def test_who_may_read_the_list_may_read_what_is_drained(tmp_path: Path) -> None:
    path = listed(tmp_path)
    for mode in (0o600, 0o644, 0o640):
        path.chmod(mode)
        drained_file(path).unlink(missing_ok=True)
        drain(path, "a")
        assert stat.S_IMODE(drained_file(path).stat().st_mode) == mode


def test_drains_at_the_same_time_do_not_lose_each_other(tmp_path: Path) -> None:
    """Threads of two processes, each its own cells; readers see whole files only."""
    names = [f"c{i}" for i in range(24)]
    path = listed(tmp_path, names)
    code = ("import sys, threading; from secformer.cells.drained import drain\n"
            "ts = [threading.Thread(target=drain, args=(sys.argv[1], name)) for name in sys.argv[2:]]\n"
            "[t.start() for t in ts]; [t.join() for t in ts]")
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path), *part])
                 for part in (names[:8], names[8:16])]
    mine = [threading.Thread(target=drain, args=(path, name)) for name in names[16:]]
    for thread in mine:
        thread.start()
    seen = [drained(path) for _ in range(200)]
    for thread in mine:
        thread.join()
    assert [process.wait() for process in processes] == [0, 0]
    assert drained(path) == set(names)
    assert all(a <= b for a, b in pairwise(seen))


def test_a_stopped_writer_leaves_the_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = listed(tmp_path)
    drain(path, "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(SettingsError, match=r"cannot write .*drained, .*: No space left on device"):
            drain(path, "b")
    assert drained(path) == {"a"}
    assert drain(path, "b") == {"a", "b"}


def test_a_look_a_second(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, now = listed(tmp_path), [0.0]
    look = Drained(path, clock=lambda: now[0])
    drain(path, "a")
    now[0] = LOOK / 2
    assert look.names() == frozenset()
    now[0] = LOOK
    assert look.names() == {"a"}
    drained_file(path).write_text("-\n")
    with caplog.at_level("WARNING"):
        for _ in range(3):
            now[0] += LOOK
            assert look.names() == {"a"}, "a file that cannot be read changes nothing"
    assert [record.message for record in caplog.records] == ["drained cells unknown"], "one problem is one line"
    drained_file(path).unlink()
    now[0] += LOOK
    assert look.names() == frozenset()
