"""One process for each folder: a lock that ends with the process that holds it, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from secformer.mpc.errors import StoreError

try:
    import fcntl
except ImportError:  # Windows, where roles are not locked
    fcntl = None  # type: ignore[assignment]


class Lock:
    """The exclusive lock of a file, from its construction until `close`. It keeps other processes of the same machine
    out, and other locks of this process; over a network file system, as far as that passes locks on.

    The file stays, and says which process held it last.
    """

    def __init__(self, path: Path, what: str, why: str = "two processes that share it would use the same randomness"):
        """`what` is locked, and why, for the error. Raises StoreError where it is held."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 20).decode("ascii", "replace").strip() or "of an unknown id"
            os.close(handle)
            raise StoreError(f"{what} {path.parent} is in use by process {holder}; {why}, so end that one first, or "
                             f"give each a folder of its own") from error
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._handle: int | None = handle

    def close(self) -> None:
        """Lets others in."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: Any) -> None:
        self.close()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other process, and no other thread, is in such a block for the folder. It takes no file of its
    own. Raises OSError where the folder cannot be locked."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
