"""What a role keeps on disk: epochs, the journal of used serials, and stored corrections with their cursor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from fuzz.mutators import json_text, lines, raw
from fuzz.target import Broken, Read, Target, require
from secformer.mpc.dealer.names import NONCE_BYTES
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.products import Hadamard
from secformer.mpc.dealer.seeds import DEPTH, Seeds
from secformer.mpc.dealer.serials import Serials
from secformer.mpc.dealer.store import Shelf, Store
from secformer.mpc.errors import ReusedRandomness
from secformer.roles.budgets import DAY, Budget, Budgets, BudgetSpent, Ledger
from secformer.roles.epochs import JOURNAL, SPACES, Epoch, State, as_note

MODEL, PLAN = "ab" * 32, "cd" * 32
SEED, EPOCH = bytes(range(32)), "ef" * 16
STORED = Plan((Hadamard(((3,),), (48,), ((0, 0, 48),), (None,)),), 1, 100)


@contextmanager
def epochs(folder: Path) -> Iterator[Read]:
    """An epoch that is read is kept as the same."""
    epoch_file(folder)
    (file,) = folder.glob("epoch-*.json")

    def read(data: bytes) -> None:
        file.write_bytes(data)
        (folder / JOURNAL).unlink(missing_ok=True)
        state = State(folder)
        try:
            epoch = state.epoch(MODEL, PLAN)
            require(epoch is not None, "an epoch that is there is found")
            if epoch is not None:
                facts, written = json.loads(data), as_note(epoch)
                require({key: facts[key] for key in written} == written, "an epoch has one spelling")
                state.keep(MODEL, PLAN, epoch)
                for seeds in (seeds for by_rank in epoch.runs.values() for seeds in by_rank.values()):
                    _once(seeds)
        finally:
            state.close()

    yield read


def _once(seeds: Seeds) -> None:
    """The seed of a serial is there once."""
    for first, end in seeds.left()[:2]:
        for serial in {first, end - 1}:
            seeds.take(serial)
            try:
                seeds.take(serial)
            except ReusedRandomness:
                continue
            raise Broken(f"the seed of serial {serial} is there twice")


def epoch_file(folder: Path, used: int = 0) -> bytes:
    """A valid file of an epoch, as the dealer keeps it. With `used`, so many serials were, and the trees of seeds have
    gaps."""
    state, runs = State(folder), {space: {0: Seeds({(0, DEPTH): SEED}), 1: Seeds({(0, DEPTH): bytes(32)})}
                                  for space in SPACES}
    for seeds in runs["live"].values():
        seeds.drop(0, used)
    if used:
        for seeds in runs["stored"].values():
            seeds.take(used)
    try:
        state.keep(MODEL, PLAN, Epoch("ef" * 16, {0: bytes(32), 1: SEED}, runs))
    finally:
        state.close()
    (file,) = folder.glob("epoch-*.json")
    return file.read_bytes()


@contextmanager
def journals(folder: Path) -> Iterator[Read]:
    """A journal that is read refuses every serial that it names, also after it was read again."""
    path = folder / "serials.log"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for _ in range(2):
            journal = Serials(path)
            try:
                for line in path.read_text("ascii").split("\n")[:-1][:64]:
                    epoch, space, named = line.split(" ")
                    first, _, last = named.removeprefix("=").partition("-")
                    for serial in {int(first), int(last or first)}:
                        _refused(journal, epoch, space, serial)
            finally:
                journal.close()

    yield read


def _refused(journal: Serials, epoch: str, space: str, serial: int) -> None:
    for burn in (journal.burn, journal.burn_alone):
        try:
            burn(epoch, space, serial)
        except ReusedRandomness:
            continue
        raise Broken(f"serial {serial} ({space}) of {epoch}, which the journal names, is given out again")


@contextmanager
def stores(folder: Path) -> Iterator[Read]:
    """A store gives out each serial once and no altered correction. Input: a cursor, a line end, and a file."""
    place = folder / "store"

    def read(data: bytes) -> None:
        cursor, _, content = data.partition(b"\n")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        (place / "a.store").write_bytes(content)
        if cursor:
            (place / "a.cursor").write_bytes(cursor + b"\n")
        packed = Shelf.read(place / "a.store").packed()
        require(content.startswith(packed), "a header has one meaning")
        store, given = Store(place, SEED, EPOCH), set[int]()
        for _ in range(8):
            store.left()
            store.ranges()
            taken = store.take(STORED)
            if taken is None:
                return
            serial, channel = taken.serial, taken.corrections
            require(serial not in given and (not cursor or serial >= int(cursor)), "a serial is given out once")
            given.add(serial)
            try:
                for tag, nbytes in STORED.corrections():
                    channel.receive(tag, nbytes)
            finally:
                channel.close()

    yield read


@contextmanager
def budgets(folder: Path) -> Iterator[Read]:
    """A journal of budgets that is read counts the same when it is read again, and a client can be told that its budget
    is spent. Input: its lines, but for the last line's end."""
    path = folder / "budgets.log"

    def read(data: bytes) -> None:
        path.write_bytes(data + b"\n")
        counted = []
        for _ in range(2):
            with closing(Ledger(Budgets(Budget(1, 1)), path, lambda: 20_000.5 * DAY)) as ledger:
                counted.append((ledger._day, dict(ledger._asked), ledger.share()))
                for client in (*list(ledger._asked)[:4], "new"):
                    for _ in range(2):
                        with suppress(BudgetSpent):
                            ledger.reserve(client, 1)
        require(counted[0] == counted[1], "a journal that is summed up says the same")

    yield read


def sealed(folder: Path) -> bytes:
    """A valid store file of two runs."""
    import numpy as np

    store = Store(folder, SEED, EPOCH)
    store.write(STORED, 5, 2, bytes(range(NONCE_BYTES)),
                lambda serial: lambda tag, nbytes: np.full(nbytes, serial, np.uint8))
    (path,) = folder.glob("*.store")
    return path.read_bytes()


TARGETS = (
    Target("epoch", ("secformer/roles/epochs.py", "mpc/dealer/seeds.py"), epochs, json_text()),
    Target("journal", ("mpc/dealer/serials.py",), journals, lines("=5", "=5-9", "=9-5", "=0", "=7-7", EPOCH, "live")),
    Target("store", ("mpc/dealer/store.py",), stores, raw),
    Target("budgets", ("secformer/roles/budgets.py",), budgets, json_text()),
)
