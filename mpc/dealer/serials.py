"""Which runs' streams have been used: written to disk, and synced, before use."""

from __future__ import annotations

import os
import re
from pathlib import Path

from secformer.mpc.dealer.files import owner_only, rewrite, sync_folder
from secformer.mpc.errors import ReusedRandomness, StoreError

KEPT = 100_000  # lines of the journal that are kept when it is opened again
_LINE = re.compile(r"(\S+) (\S+) (=?)([0-9]{1,15})(?:-([0-9]{1,15}))?")


class Serials:
    """A journal of used serials, one per line: epoch, space ("live" or "stored"), serial.

    Live serials only rise, so that the last one says what is used. Stored ones are used in whatever order requests of
    different shapes come: such a line, "=5" or of several serials "=5-9", says nothing of the serials below it.

    Not thread-safe. Raises StoreError for a journal that cannot be read.
    """

    def __init__(self, path: Path):
        lines, cut = self._load(path)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if cut or len(lines) > KEPT:
            rewrite(path, "".join(f"{line}\n" for line in (lines if len(lines) <= KEPT else self._summary())))
        self._file = os.fdopen(owner_only(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "a", encoding="ascii")
        sync_folder(path.parent)  # a journal that a power cut takes away would make every serial new

    def _load(self, path: Path) -> tuple[list[str], str]:
        """Reads the journal: its lines, and what was cut off by a crash before it was synced, so never used."""
        self._path = path
        self._below: dict[tuple[str, str], int] = {}             # this serial and all below it
        self._alone: dict[tuple[str, str], dict[int, int]] = {}  # first serial by the one after the last
        try:
            text = path.read_text("ascii") if path.exists() else ""
        except (OSError, ValueError) as error:
            raise self._unreadable(str(error)) from error
        *lines, cut = text.split("\n")
        for line in lines:
            self._read(line)
        return lines, cut

    @classmethod
    def last_in(cls, path: Path, epoch: str, space: str) -> int:
        """`last` of a journal that another process may be writing, as it is now. Raises StoreError."""
        journal = cls.__new__(cls)
        journal._load(path)
        return journal.last(epoch, space)

    def last(self, epoch: str, space: str) -> int:
        """The highest used serial of a space, -1 for none."""
        alone = self._alone.get((epoch, space), {})
        return max(self._below.get((epoch, space), -1), max(alone, default=0) - 1)

    def used(self, epoch: str, space: str) -> list[tuple[int, int]]:
        """The used serials of a space, as ranges: the first, and the one after the last."""
        below = self._below.get((epoch, space), -1) + 1
        return ([(0, below)] if below else []) + [
            (first, end) for end, first in self._alone.get((epoch, space), {}).items()]

    def burn(self, epoch: str, space: str, serial: int) -> None:
        """Marks a serial, and all below it, as used. Raises ReusedRandomness when it or a higher one was."""
        if serial <= self.last(epoch, space):
            raise self._reused(epoch, space, serial)
        self._write(f"{epoch} {space} {serial}")
        self._below[epoch, space] = serial

    def burn_alone(self, epoch: str, space: str, serial: int) -> None:
        """Marks a serial as used, whatever became of lower ones. Raises ReusedRandomness when it was."""
        if serial < 0 or self._used(epoch, space, serial):
            raise self._reused(epoch, space, serial)
        self._write(f"{epoch} {space} ={serial}")
        self._mark(epoch, space, serial, serial)

    def close(self) -> None:
        self._file.close()

    def _used(self, epoch: str, space: str, serial: int) -> bool:
        return serial <= self._below.get((epoch, space), -1) or any(
            first <= serial < end for end, first in self._alone.get((epoch, space), {}).items())

    def _mark(self, epoch: str, space: str, first: int, last: int) -> None:
        alone = self._alone.setdefault((epoch, space), {})
        # joins the range that ended here, so that few are kept; of two that end alike, the longer one counts
        alone[last + 1] = min(alone.pop(first, first), alone.get(last + 1, first))

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self, line: str) -> None:
        if not (found := _LINE.fullmatch(line)) or (found[5] and not (found[3] and int(found[4]) <= int(found[5]))):
            raise self._unreadable(f"the line {line[:80]!r} is not a used serial")
        epoch, space, alone, first, last = found.groups()
        if alone:
            self._mark(epoch, space, int(first), int(last or first))
        else:
            self._below[epoch, space] = max(self._below.get((epoch, space), -1), int(first))

    def _summary(self) -> list[str]:
        """What is used, in few lines."""
        return [f"{epoch} {space} {serial}" for (epoch, space), serial in self._below.items()] + [
            f"{epoch} {space} ={first}-{end - 1}"
            for (epoch, space), ranges in self._alone.items() for end, first in ranges.items()]

    def _unreadable(self, why: str) -> StoreError:
        return StoreError(f"{self._path} cannot be read ({why}). It says which randomness was used, so nothing may be "
                          f"used without it: remove this role's state folder to start a new epoch")

    def _reused(self, epoch: str, space: str, serial: int) -> ReusedRandomness:
        return ReusedRandomness(f"serial {serial} ({space}) of epoch {epoch} was used before; a mask serves once: was "
                                f"this role's state restored from a backup, or its peer's?")
