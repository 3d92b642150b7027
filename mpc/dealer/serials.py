"""Which runs' streams have been used: written to disk, and synced, before use."""

from __future__ import annotations

import os
from pathlib import Path

from secformer.mpc.errors import ReusedRandomness, StoreError

KEPT = 100_000  # lines of the journal that are kept when it is opened again


class Serials:
    """A journal of used serials, a line each: epoch, space ("live" or "stored"), serial. In each space of an epoch
    serials only rise, so that the last one says what is used. Not thread-safe."""

    def __init__(self, path: Path):
        self._path = path
        self._last: dict[tuple[str, str], int] = {}
        lines = path.read_text("ascii").splitlines() if path.is_file() else []
        for line in lines:
            try:
                epoch, space, serial = line.split(" ")
                self._last[epoch, space] = max(self.last(epoch, space), int(serial))
            except ValueError:
                if line is lines[-1]:  # cut off by a crash before it was synced: its serial was never used
                    continue
                raise StoreError(f"{path} holds the line {line!r}, which is no used serial; without it nobody knows "
                                 f"what was used: remove this role's state folder to start a new epoch") from None
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._tidy(lines)
        self._file = path.open("a", encoding="ascii")

    def last(self, epoch: str, space: str) -> int:
        """The highest used serial of a space, -1 for none."""
        return self._last.get((epoch, space), -1)

    def burn(self, epoch: str, space: str, serial: int) -> None:
        """Marks a serial, and all below it, as used. Raises ReusedRandomness when it was."""
        if serial <= self.last(epoch, space):
            raise ReusedRandomness(f"serial {serial} ({space}) of epoch {epoch} was used before; a mask serves once: "
                                   f"was this role's state restored from a backup, or its peer's?")
        self._file.write(f"{epoch} {space} {serial}\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._last[epoch, space] = serial

    def close(self) -> None:
        self._file.close()

    def _tidy(self, lines: list[str]) -> None:
        """Drops a cut line, and the oldest ones of a very long journal but for each space's last."""
        good = [line for line in lines if line.count(" ") == 2 and line.rpartition(" ")[2].isdigit()]
        if len(good) > KEPT:
            good = [f"{epoch} {space} {serial}" for (epoch, space), serial in self._last.items()]
        if good != lines or (self._path.is_file() and not self._path.read_bytes().endswith(b"\n") and lines):
            part = self._path.with_suffix(".part")
            part.write_text("".join(f"{line}\n" for line in good), "ascii")
            part.replace(self._path)
