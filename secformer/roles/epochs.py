"""Epochs: two parties and a dealer under one pair of seeds, and what each role keeps of an epoch on disk.

An epoch belongs to one provisioned model: the masks of the weights come from its seeds and must never mask anything
else. An epoch outlives every process. If the dealer loses its state, it starts a new epoch, and older material becomes
worthless.

Runs have seeds of their own, one for each serial (see `mpc/dealer/seeds`). A seed leaves the memory and the disk when
its serial is used. So what a role keeps opens no run that was.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secformer.mpc.dealer.files import rewrite
from secformer.mpc.dealer.locking import Lock
from secformer.mpc.dealer.names import LIVE, STORED
from secformer.mpc.dealer.seeds import Seeds
from secformer.mpc.dealer.serials import Serials
from secformer.mpc.errors import Desync, StoreError
from secformer.mpc.net.notes import hexadecimal, text, whole
from secformer.mpc.prg import SEED_BYTES, fresh_seed
from secformer.mpc.strict_json import read_own

FORMAT = "secformer epoch 2"
NAME_BYTES = 16
JOURNAL = "serials.log"
SPACES = (LIVE, STORED)
RANKS = {"0": 0, "1": 1}


@dataclass(frozen=True)
class Epoch:
    """An epoch as one role knows it. A party holds its own seeds, the dealer both parties'.

    seeds   by rank, of the masks of the weights, which stay
    runs    by space and rank, of the runs that were not used
    joined  the parties that have got the seeds of runs; only the dealer's says so
    began   when the dealer drew the seeds, in seconds since 1970; 0 where it is not known, as at a party
    """

    name: str
    seeds: dict[int, bytes] = field(repr=False)
    runs: dict[str, dict[int, Seeds]] = field(default_factory=dict, repr=False, compare=False)
    joined: set[int] = field(default_factory=set, compare=False)
    began: float = field(default=0.0, compare=False)

    @classmethod
    def fresh(cls, ranks: Iterable[int] = (0, 1)) -> Epoch:
        """A new name and new seeds, from the operating system."""
        ranks = tuple(ranks)
        return cls(fresh_seed()[:NAME_BYTES].hex(), {rank: fresh_seed() for rank in ranks},
                   {space: {rank: Seeds.fresh() for rank in ranks} for space in SPACES}, began=time.time())

    def left(self, space: str) -> list[tuple[int, int]]:
        """The serials whose seeds are left, as ranges: the first, and the one after the last."""
        return next((seeds.left() for seeds in self.runs.get(space, {}).values()), [])


class State:
    """A role's folder on disk: one file per epoch, named by model and plan of provisioning, and the used serials. One
    process holds it, until `close`. Not thread-safe."""

    def __init__(self, folder: Path):
        """Raises StoreError while another process holds the folder, and for a journal that cannot be read."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder, self._lock = folder, Lock(folder / "lock", "the state folder")
        self._known: dict[Path, tuple[str, str, Epoch]] = {}  # with model and plan
        self._used: set[str] = set()  # epochs whose files still hold seeds that were used
        try:
            self.serials = Serials(folder / JOURNAL)
        except BaseException:
            self._lock.close()
            raise

    def epoch(self, model: str, plan: str) -> Epoch | None:
        """The epoch of a provisioned model, or None if this role knows none. Raises StoreError for a file that cannot
        be read, or that another version wrote."""
        path = self._path(model, plan)
        if path not in self._known:
            try:
                self._load(path)
            except FileNotFoundError:
                return None
        if self._known[path][:2] != (model, plan):
            raise StoreError(f"{path} belongs to another model or plan, whose digest begins alike; give this role "
                             f"another state folder")
        return self._known[path][2]

    def epochs(self) -> list[tuple[str, str, Epoch]]:
        """All epochs in the folder, each with its model and its plan of provisioning. Raises StoreError as `epoch`."""
        for path in sorted(self.folder.glob("epoch-*.json")):
            if path not in self._known:
                self._load(path)
        return list(self._known.values())

    def _load(self, path: Path) -> None:
        """Raises StoreError, FileNotFoundError."""
        try:
            facts = read_own(path.read_bytes())
            model, plan = _named(path, facts)
            epoch = epoch_of(facts)
            if set(epoch.runs) != set(SPACES):
                raise ValueError("it lacks the seeds of runs")
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} cannot be read ({type(error).__name__}: {error}); remove it to start a new "
                             f"epoch") from error
        self._known[path] = model, plan, epoch
        for space, by_rank in epoch.runs.items():  # a crash may have come between the journal and this file
            for first, end in self.serials.used(epoch.name, space):
                if any([seeds.drop(first, end) for seeds in by_rank.values()]):
                    self._used.add(epoch.name)
        self.erase()

    def keep(self, model: str, plan: str, epoch: Epoch) -> None:
        """Writes an epoch to disk, before it is used."""
        path = self._path(model, plan)
        self._write(path, model, plan, epoch)
        self._known[path] = model, plan, epoch

    def fresh(self, model: str, plan: str) -> Epoch:
        """A new epoch with new seeds, written to disk. Only the dealer calls this."""
        epoch = Epoch.fresh()
        self.keep(model, plan, epoch)
        return epoch

    def last(self, epoch: Epoch, space: str) -> int:
        """The last used serial of a space whose serials rise: -1 for none."""
        left = epoch.left(space)
        return max(self.serials.last(epoch.name, space), left[0][0] - 1 if left else -1)

    def burn(self, epoch: Epoch, space: str, first: int, count: int = 1, *, alone: bool = False) -> dict[int, Seeds]:
        """Marks `count` serials from `first` on as used, on disk, and gives their seeds, by rank, which are not kept in
        memory any more. On disk they are until `erase`. All serials below are used up too, unless it is one `alone`.

        Raises ReusedRandomness, RangeError.
        """
        for seeds in epoch.runs[space].values():
            seeds.require(first, count)
        if alone:
            self.serials.burn_alone(epoch.name, space, first)
        else:
            self.serials.burn(epoch.name, space, first + count - 1)
        found = {rank: seeds.cut(first, count) for rank, seeds in epoch.runs[space].items()}
        if not alone:
            for seeds in epoch.runs[space].values():
                seeds.drop(0, first)
        self._used.add(epoch.name)
        return found

    def meet(self, epoch: Epoch, first: int) -> None:
        """Lets go of the seeds of live runs below `first`, which the dealer has dealt."""
        for seeds in epoch.runs[LIVE].values():
            if seeds.drop(0, first):
                self._used.add(epoch.name)
        self.erase()

    def join(self, epoch: Epoch, rank: int) -> None:
        """Notes, on disk, that a party gets the seeds of runs. Only the dealer calls this."""
        if rank not in epoch.joined:
            epoch.joined.add(rank)
            self._used.add(epoch.name)
            self.erase()

    def erase(self) -> None:
        """Takes the seeds of used serials off the disk."""
        for path, (model, plan, epoch) in self._known.items():
            if epoch.name in self._used:
                self._write(path, model, plan, epoch)
                self._used.discard(epoch.name)

    def close(self) -> None:
        """Closes the journal of used serials, and lets another process have the folder."""
        with suppress(OSError):  # the next process does it
            self.erase()
        self._known.clear()  # another process may have the folder now: nothing is written any more
        self.serials.close()
        self._lock.close()

    def _write(self, path: Path, model: str, plan: str, epoch: Epoch) -> None:
        facts = {"format": FORMAT, "model": model, "plan": plan, "joined": sorted(epoch.joined),
                 "began": epoch.began} | as_note(epoch)
        replace(path, json.dumps(facts))

    def _path(self, model: str, plan: str) -> Path:
        return self.folder / f"epoch-{model[:16]}-{plan[:16]}.json"


def _named(path: Path, facts: Any) -> tuple[str, str]:
    """The model and the plan that a file is for. Raises StoreError for another version's, ValueError, KeyError."""
    if not isinstance(facts, dict):
        raise ValueError("it is not a JSON object")
    if facts.get("format") != FORMAT:
        raise StoreError(f"{path} has the format {str(facts.get('format'))[:40]!r}, but this version keeps {FORMAT!r}. "
                         f"Stop all roles, remove `state` at all three and `store` at party 1, and start them: a new "
                         f"epoch then begins")
    return text(facts["model"]), text(facts["plan"])


def names_in(folder: Path) -> dict[str, tuple[str, str]]:
    """The model and the name of each epoch in a state folder, by its file. Another process may hold the folder. Raises
    StoreError."""
    found = {}
    for path in sorted(folder.glob("epoch-*.json")):
        try:
            facts = read_own(path.read_bytes())
            found[path.name] = _named(path, facts)[0], hexadecimal(facts["epoch"], NAME_BYTES).hex()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    return found


def replace(path: Path, content: str) -> None:
    """Writes a file that appears whole, for its owner alone. What was in the file of that name is overwritten with
    zeros."""
    try:
        old = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        old = None
    try:
        rewrite(path, content)
        if old is not None:
            os.write(old, bytes(os.fstat(old).st_size))
            os.fsync(old)
    finally:
        if old is not None:
            os.close(old)


def as_note(epoch: Epoch, rank: int | None = None, *, runs: bool = True) -> dict[str, Any]:
    """An epoch as JSON; with `rank`, as that party knows it; without `runs`, no seeds of runs."""
    seeds = {str(r): seed.hex() for r, seed in epoch.seeds.items() if rank in (None, r)}
    left = {space: {str(r): seeds.rows() for r, seeds in by_rank.items() if rank in (None, r)}
            for space, by_rank in epoch.runs.items() if runs}
    return {"epoch": epoch.name, "seeds": seeds, "runs": left}


def epoch_of(note: dict[str, Any]) -> Epoch:
    """The inverse of `as_note`. Raises KeyError, TypeError, ValueError, AttributeError."""
    seeds = {RANKS[rank]: hexadecimal(seed, SEED_BYTES) for rank, seed in note["seeds"].items()}
    runs = {text(space): {RANKS[rank]: Seeds.of_rows(rows) for rank, rows in by_rank.items()}
            for space, by_rank in note["runs"].items()}
    if runs and (set(runs) != set(SPACES) or any(set(by_rank) != set(seeds) for by_rank in runs.values())):
        raise ValueError(f"an epoch has seeds of the runs of {LIVE} and {STORED}, of the same parties")
    return Epoch(hexadecimal(note["epoch"], NAME_BYTES).hex(), seeds, runs,
                 {whole(rank, 0, 1) for rank in note.get("joined", ())}, _seconds(note.get("began", 0.0)))


def _seconds(given: Any) -> float:
    if not isinstance(given, float) or given < 0.0:
        raise ValueError("when an epoch began must be in seconds since 1970")
    return given


def space_of(name: str) -> str:
    """Raises Desync for what is no space of serials."""
    if name not in SPACES:
        raise Desync(f"the other party names the space {name[:40]!r}; the spaces are {LIVE} and {STORED}")
    return name


