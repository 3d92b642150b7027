"""One process for each folder: told who holds it, and let in when that one has ended, however it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from secformer.mpc.dealer.locking import Lock, alone_in
from secformer.mpc.errors import StoreError

HOLDS = "import sys, time\nfrom pathlib import Path\nfrom secformer.mpc.dealer.locking import Lock\n" \
        "lock = Lock(Path(sys.argv[1]), 'the folder')\nprint('held', flush=True)\ntime.sleep(600)\n"


def test_another_process_is_named_and_its_end_frees_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "state" / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match=f"the folder {path.parent} is in use by process {holder.pid}; .*end that"):
            Lock(path, "the folder")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
    with Lock(path, "the folder"):
        assert path.read_text() == f"{os.getpid()}\n" and path.stat().st_mode & 0o077 == 0


def test_within_one_process_too(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", "the folder")
    with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
        Lock(tmp_path / "lock", "the folder")
    lock.close()
    lock.close()
    Lock(tmp_path / "lock", "the folder").close()


def test_one_at_a_time_in_a_folder(tmp_path: Path) -> None:
    """Who finds somebody in waits for the end, also in another thread; nothing is left in the folder."""
    inside, seen = threading.Event(), []

    def enter() -> None:
        inside.set()
        with alone_in(tmp_path):
            seen.append("other")

    other = threading.Thread(target=enter)
    with alone_in(tmp_path):
        other.start()
        inside.wait()
        other.join(0.1)
        seen.append("own")
    other.join()
    assert seen == ["own", "other"] and not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError), alone_in(tmp_path / "gone"):
        pass
