"""Corrections made ahead of time, in files at party 1, so that requests can be answered while the dealer is away.

A file holds the corrections of consecutive runs of one plan: a header (version, rank, epoch, plan, serials, nonce), and
for each run every correction with a tag and an authenticator. A cursor beside it says which serial comes next; it is
written and synced before a run is handed out, so that a crash may waste material and never gives it out twice.

One process may take from a folder, and one may write into it, at the same time (see `reading` and `writing`). Files of
runs that a party made ahead by itself have a mark in their names: the party may remove those again. A copy of
a file that is put back gives its runs out again: what stops that is that their seeds are gone (see `seeds`), so compare
`ranges` with those that are left.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from secformer.mpc.dealer.files import owner_only, rewrite, sync_folder
from secformer.mpc.dealer.locking import Lock
from secformer.mpc.dealer.names import NO_NONCE, NONCE_BYTES, STORED, run_name
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.shelved import Shelved, mac, run_bytes
from secformer.mpc.errors import Desync, PeerLost, StoreError
from secformer.mpc.net.channel import Channel
from secformer.mpc.net.notes import decimal
from secformer.mpc.net.wire import Tag, pack_header

MAGIC = b"SFST"
VERSION = 2
_HEADER = struct.Struct("<4sHHQQQ16s32s16s")  # magic, version, rank, first serial, count, bytes per run, epoch, plan,
#                                               nonce
AHEAD = "-ahead"  # ends the names of files that may be removed again
Receive = Callable[[Tag, int], Any]


@dataclass(frozen=True)
class Shelf:
    """The header of a file."""

    rank: int
    first: int
    count: int
    size: int
    epoch: str
    plan: str
    nonce: bytes = field(repr=False)

    @property
    def end(self) -> int:
        """The serial after the last."""
        return self.first + self.count

    def packed(self) -> bytes:
        return _HEADER.pack(MAGIC, VERSION, self.rank, self.first, self.count, self.size, bytes.fromhex(self.epoch),
                            bytes.fromhex(self.plan), self.nonce)

    @classmethod
    def read(cls, path: Path) -> Shelf:
        """Raises StoreError for a file that is not a store of this version, or shorter than its header says."""
        try:
            with path.open("rb") as file:
                raw, size = file.read(_HEADER.size), os.fstat(file.fileno()).st_size
            magic, version, rank, first, count, each, epoch, plan, nonce = _HEADER.unpack(raw)
        except (OSError, struct.error) as error:
            raise StoreError(f"{path} is not a readable store ({error}); remove it and deal again") from error
        if (magic, version) != (MAGIC, VERSION) or size != _HEADER.size + count * each:
            raise StoreError(f"{path} is not a complete store of version {VERSION} (it starts with {magic!r}, version "
                             f"{version}, and has {size} bytes instead of {_HEADER.size + count * each}); remove it "
                             f"and deal again")
        return cls(rank, first, count, each, epoch.hex(), plan.hex(), nonce)


@dataclass(frozen=True)
class Written:
    """How many runs a store took, and what stopped it before all of them."""

    runs: int
    problem: str


@dataclass(frozen=True)
class Taken:
    """A run that was taken from a store: its serial, the nonce in its name, and the channel of its corrections."""

    serial: int
    nonce: bytes = field(repr=False)
    corrections: Channel


def reading(folder: Path) -> Lock:
    """Keeps all others from taking from a store. Raises StoreError while another process does."""
    return Lock(folder / "reading.lock", "the store")


def writing(folder: Path) -> Lock:
    """Keeps all others from writing into a store. Raises StoreError while another process does."""
    return Lock(folder / "writing.lock", "the store (into which `secformer deal`, or party 1's filler, writes)")


class Store:
    """The files of one party's folder. Thread-safe only for one reader and one writer, each in its own process or
    thread: files appear whole.

    seed, epoch   authenticate what is read back and say which pairing it belongs to: material of another is not seen.
                  The seed stays for as long as the epoch does
    """

    def __init__(self, folder: Path, seed: bytes, epoch: str, rank: int = 1):
        self.folder, self._seed, self._epoch, self._rank = folder, seed, epoch, rank

    def left(self) -> dict[str, int]:
        """Runs that are left, by plan digest."""
        left: dict[str, int] = {}
        for path, shelf in self._shelves():
            left[shelf.plan] = left.get(shelf.plan, 0) + max(0, shelf.end - self._next(path, shelf))
        return {plan: count for plan, count in left.items() if count}

    def ranges(self) -> list[tuple[Path, int, int]]:
        """The runs that are left, by file: the first serial, and the one after the last. Raises StoreError."""
        found = [(path, self._next(path, shelf), shelf.end) for path, shelf in self._shelves()]
        return [(path, first, end) for path, first, end in found if first < end]

    def last(self) -> int:
        """The highest serial in any file, used or not; -1 for none. Raises StoreError."""
        return max((shelf.end - 1 for _, shelf in self._shelves()), default=-1)

    def take(self, plan: Plan) -> Taken | None:
        """The next run of a plan; None when there is none. Its serial is burnt, on disk, before this returns. Raises
        StoreError."""
        for path, shelf in self._shelves():
            if shelf.plan != plan.digest:
                continue
            if shelf.size != run_bytes(plan):
                raise StoreError(f"{path} has runs of {shelf.size} bytes, but those of its plan have {run_bytes(plan)};"
                                 f" remove it and deal again")
            serial, end = self._next(path, shelf), shelf.end
            if serial >= end:  # a crash came between the burning and the removal of its last run
                self._remove(path)
                continue
            try:
                file = path.open("rb")
            except FileNotFoundError:  # removed by another thread since the folder was listed
                continue
            try:
                self._burn(path, serial + 1)
                file.seek(_HEADER.size + (serial - shelf.first) * shelf.size)
                if serial + 1 == end:  # the last run: readable through the open file only
                    self._remove(path)
            except BaseException:
                file.close()
                raise
            label, name = f"{STORED}/{serial}", self._name(serial, shelf.nonce, plan)
            return Taken(serial, shelf.nonce, Shelved(file, self._seed, label, name))
        return None

    def keep_only(self, epochs: Collection[str]) -> int:
        """Removes the material of all epochs but these, which nobody can use any more. Files of other versions stay.
        Returns how many files were removed."""
        removed = 0
        for path in sorted(self.folder.glob("*.store")):
            with suppress(StoreError):
                if Shelf.read(path).epoch not in epochs:
                    self._remove(path)
                    removed += 1
        return removed

    def _name(self, serial: int, nonce: bytes, plan: Plan) -> str:
        return run_name(self._epoch, STORED, serial, (NO_NONCE, nonce), plan.digest)

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)  # another thread may have been faster
        _cursor(path).unlink(missing_ok=True)

    def nbytes(self) -> int:
        """Bytes on disk of all runs in the folder: those of other epochs, and those being written, are counted too."""
        found = 0
        for pattern in ("*.store", "*.part"):
            for path in self.folder.glob(pattern):
                with suppress(FileNotFoundError):  # used up since the folder was listed
                    found += path.stat().st_size
        return found

    def discard(self, unwanted: Callable[[str], bool]) -> Path | None:
        """Removes the oldest file of runs that were made ahead, if they are of another epoch or their plan is
        `unwanted`. Says which; None where there is none. For who holds `writing`."""
        for path in sorted(self.folder.glob(f"*{AHEAD}.store"), key=lambda path: path.name.split("-")[2]):
            try:
                shelf = Shelf.read(path)
            except StoreError:
                if path.exists():
                    raise
                continue  # used up since the folder was listed
            if shelf.epoch != self._epoch or unwanted(shelf.plan):
                self._remove(path)
                return path
        return None

    def tidy(self) -> None:
        """Removes what a killed process left of runs that it was writing. For who holds `writing`."""
        for path in self.folder.glob("*.part"):
            if not path.name.endswith(".cursor.part"):  # the reader's
                path.unlink()

    def write(self, plan: Plan, first: int, count: int, nonce: bytes, deal: Callable[[int], Receive],
              told: Callable[[int], None] = lambda done: None, ahead: bool = False) -> Written:
        """Writes `count` runs of a plan from serial `first` on; `deal(serial)` gives the corrections one by one.
        `nonce` is drawn for these runs alone. Runs that are made `ahead` may be discarded.

        Where the disk is full or the dealer leaves, the runs that are whole are kept. Raises StoreError where not one
        is.
        """
        if len(nonce) != NONCE_BYTES:
            raise StoreError(f"a nonce has {NONCE_BYTES} bytes, got {len(nonce)}; draw one with fresh_nonce()")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / f"{plan.digest[:16]}-{self._epoch[:8]}-{first:012d}{AHEAD if ahead else ''}.store"
        part = path.with_suffix(".part")
        done, problem = 0, None
        try:
            try:
                with open(part, "xb", opener=owner_only) as file:
                    file.write(bytes(_HEADER.size))
                    for serial in range(first, first + count):
                        self._put_run(file, plan, self._name(serial, nonce, plan), deal(serial))
                        done += 1
                        told(done)
            except (OSError, PeerLost, Desync) as error:
                problem = error
            if done:
                self._finish(part, path, Shelf(self._rank, first, done, run_bytes(plan), self._epoch, plan.digest,
                                               nonce))
        except OSError as error:
            problem, done = problem or error, 0
        finally:
            part.unlink(missing_ok=True)
        if problem and not done:
            raise StoreError(f"nothing could be stored in {self.folder}: {problem}; a run of this plan takes "
                             f"{run_bytes(plan) / 1e6:.1f} MB") from problem
        return Written(done, str(problem or ""))

    def _put_run(self, file: BinaryIO, plan: Plan, name: str, receive: Receive) -> None:
        for tag, nbytes in plan.corrections():
            self._put(file, tag, receive(tag, nbytes), name)
        file.flush()

    def _finish(self, part: Path, path: Path, shelf: Shelf) -> None:
        """Makes a store of the whole runs in `part`. The file was closed: what a full disk refused must not be tried
        again by a flush."""
        with part.open("r+b") as file:
            file.truncate(_HEADER.size + shelf.count * shelf.size)
            file.write(shelf.packed())
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        sync_folder(self.folder)

    def _put(self, file: BinaryIO, tag: Tag, payload: Any, run: str) -> None:
        header, data = pack_header(tag, payload.size), np.ascontiguousarray(payload).data
        file.write(header)
        file.write(data)
        file.write(mac(self._seed, run, tag, header, data))

    def _shelves(self) -> Iterator[tuple[Path, Shelf]]:
        for path in sorted(self.folder.glob("*.store")):
            try:
                shelf = Shelf.read(path)
            except StoreError:
                if path.exists():
                    raise
                continue  # used up, by the other process, since the folder was listed
            if shelf.epoch == self._epoch and shelf.rank == self._rank:
                yield path, shelf

    def _next(self, path: Path, shelf: Shelf) -> int:
        try:
            return max(shelf.first, decimal(_cursor(path).read_text("ascii").removesuffix("\n")))
        except FileNotFoundError:
            return shelf.first
        except (OSError, ValueError) as error:
            raise StoreError(f"the cursor {_cursor(path)} cannot be read ({error}), so nobody knows what was used: "
                             f"remove it together with {path.name} and deal again") from error

    def _burn(self, path: Path, following: int) -> None:
        rewrite(_cursor(path), f"{following}\n")


def file_bytes(plan: Plan, count: int) -> int:
    """Bytes of a file of `count` runs of a plan."""
    return _HEADER.size + count * run_bytes(plan)


def _cursor(path: Path) -> Path:
    return path.with_suffix(".cursor")
