"""The files of an audit log on disk: appended to, synced, begun anew by size, and resumed after a crash."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Any

from secformer.mpc.dealer.files import sync_folder
from secformer.mpc.dealer.locking import Lock
from secformer.mpc.errors import StoreError
from secformer.roles.chain import ENDED, FORMAT, SUFFIX, Head, cut_facts, digest, file_name, read, same_format


class AuditFiles:
    """The files of a chain in a folder, the newest of which is appended to. Not thread-safe.

    head   the last line in the files
    chain  its name; "" where there is none yet
    ended  whether the role ended in order after the last line that was found
    cut    what a resumed line must say of bytes that a crash left; None if there are none
    """

    def __init__(self, folder: Path, role: str, most: int):
        """Raises OSError, StoreError."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder, self._most = folder, most
        self._lock = Lock(folder / "lock", "the audit log", "a chain has one writer")
        self._handle = -1
        self._rest: bytes | None = None  # of the first line that waits, where a part of it is written
        self._prefix = b""
        self.head, self.chain, self.ended = Head(), "", False
        self.cut: dict[str, Any] | None = None
        if files := sorted(folder.glob(f"*{SUFFIX}")):
            try:
                self._resume(files, role)
            except BaseException:
                self._lock.close()
                raise

    def _resume(self, files: list[Path], role: str) -> None:
        *earlier, last = files
        lines, region, self._prefix = _ending(last)
        if not lines and earlier:
            lines, torn, prefix = _ending(earlier[-1])
            if torn or prefix:
                raise StoreError(f"{earlier[-1]} is cut, and {last} follows it; check the log with `secformer audit "
                                 f"verify`, keep it elsewhere, and begin a new one in an empty folder")
        if lines:
            facts = read(lines)
            if not same_format(facts):
                raise StoreError(f"{last} has the format {str(facts['format'])[:40]!r}, but this version writes "
                                 f"{FORMAT!r}; keep the log elsewhere, and begin a new one in an empty folder")
            if facts["role"] != role:
                raise StoreError(f"{last} is the audit log of {facts['role']}, but this is {role}; give each role a "
                                 f"folder of its own as audit_folder")
            self.head, self.chain = Head(facts["number"], digest(lines)), facts["chain"]
            self.ended = not region and facts["event"] == ENDED
        self.cut = cut_facts(region) if region else None
        self._handle = os.open(last, os.O_WRONLY | os.O_APPEND)
        self._size = last.stat().st_size

    def write(self, lines: deque[tuple[Head, bytes]]) -> None:
        """Appends lines, and takes each away that is in the file. Raises OSError; then it can be called again."""
        while lines:
            head, line = lines[0]
            if self._rest is None:
                if self._handle < 0:
                    self._begin(head.number)
                self._rest, self._prefix = self._prefix + line, b""
            while self._rest:
                count = os.write(self._handle, self._rest)
                self._rest, self._size = self._rest[count:], self._size + count
            self._rest, self.head = None, head
            lines.popleft()

    def sync(self) -> None:
        """Makes what was written last. Ends a file that is large enough. Raises OSError."""
        if self._handle >= 0:
            os.fsync(self._handle)
            if self._size >= self._most and self._rest is None:
                os.close(self._handle)
                self._handle = -1

    def _begin(self, number: int) -> None:
        path = self._folder / file_name(number)
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        self._size = 0
        sync_folder(self._folder)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1
        self._lock.close()


def _ending(path: Path) -> tuple[bytes, bytes, bytes]:
    """The last line of a file that can be read, the bytes that a crash left behind it, and what must be written before
    the next line."""
    pieces = path.read_bytes().split(b"\n")
    for place in range(len(pieces) - 1, -1, -1):
        try:
            read(pieces[place])
        except ValueError:
            continue
        if place == len(pieces) - 1:
            return pieces[place], b"", b"\n"  # whole, but for its end
        region = b"\n".join(pieces[place + 1:])
        return pieces[place], region, b"\n" if region else b""
    region = b"\n".join(pieces)
    return b"", region, b"\n" if region else b""
