"""The store: what is written is read back, nothing else is, and a serial is burnt on disk before it is handed out."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpc_lab import SEEDS, kernels_named

from secformer.mpc.dealer import store as module
from secformer.mpc.dealer.comparisons import Less
from secformer.mpc.dealer.kinds import Lift
from secformer.mpc.dealer.names import NO_NONCE, STORED, run_name
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.products import Hadamard
from secformer.mpc.dealer.service import Dealer
from secformer.mpc.dealer.shelved import MAC_BYTES, run_bytes
from secformer.mpc.dealer.source import Source
from secformer.mpc.dealer.store import Receive, Shelf, Store, file_bytes, reading, writing
from secformer.mpc.errors import Desync, PeerLost, StoreError
from secformer.mpc.meter import Meter
from secformer.mpc.net.channel import Channel, local_pair
from secformer.mpc.net.wire import HEADER_BYTES, Tag

EPOCH, OTHER = "ab" * 16, "cd" * 16
NONCE = bytes(range(16))
SQUARE = Hadamard(((3,),), (48,), ((0, 0, 48),), (None,))
CUT = Lift(3, 16, 48)
PLAN = Plan((SQUARE, CUT, Less(2, 9, 48)), 3, 100)
TWIN = Plan((CUT, CUT), 2, 50)  # two frames of one name and size
HEADER = 96  # bytes of a file's own
FRAMES = list(PLAN.corrections())


def named(plan: Plan, serial: int) -> str:
    return run_name(EPOCH, STORED, serial, (NO_NONCE, NONCE), plan.digest)


def dealt(plan: Plan, serial: int) -> Channel:
    """The corrections of a run as the dealer sends them."""
    dealer, feed = local_pair("the dealer", "party 1", deadline=1.0)
    Dealer(SEEDS, kernels_named("numpy")).deal(plan, named(plan, serial), dealer)
    dealer.close()
    return feed


def deal(plan: Plan) -> Callable[[int], Receive]:
    return lambda serial: dealt(plan, serial).receive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def store(folder: Path, **changes: Any) -> Store:
    return Store(**{"folder": folder, "seed": SEEDS[1], "epoch": EPOCH, **changes})


def filled(folder: Path, plan: Plan = PLAN, first: int = 0, count: int = 3) -> Path:
    """A store of some runs; its file."""
    before = set(folder.glob("*.store"))
    written = store(folder).write(plan, first, count, NONCE, deal(plan))
    assert (written.runs, written.problem) == (count, "")
    (path,) = set(folder.glob("*.store")) - before
    return path


@contextmanager
def taken(folder: Path, plan: Plan = PLAN, **changes: Any) -> Iterator[tuple[int, Channel]]:
    found = store(folder, **changes).take(plan)
    assert found is not None
    try:
        yield found.serial, found.corrections
    finally:
        found.corrections.close()


def read(channel: Channel, plan: Plan = PLAN) -> list[np.ndarray]:
    return [channel.receive(tag, nbytes) for tag, nbytes in plan.corrections()]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_runs_are_read_back_in_order_as_they_were_dealt(folder: Path) -> None:
    told: list[int] = []
    written = store(folder).write(PLAN, 7, 3, NONCE, deal(PLAN), told.append)
    assert (written.runs, told) == (3, [1, 2, 3])
    (path,) = folder.iterdir()
    assert path.stat().st_size == HEADER + 3 * run_bytes(PLAN) and path.stat().st_mode & 0o077 == 0
    assert Shelf.read(path) == Shelf(1, 7, 3, run_bytes(PLAN), EPOCH, PLAN.digest, NONCE)
    for left, serial in zip((2, 1, 0), (7, 8, 9), strict=True):
        with taken(folder) as (got, channel):
            assert got == serial
            same(read(channel), read(dealt(PLAN, serial)))
        assert store(folder).left() == ({PLAN.digest: left} if left else {})
    assert store(folder).take(PLAN) is None and not list(folder.iterdir()), "used files go"


def test_a_program_takes_the_same_material_from_the_store_and_from_the_dealer(folder: Path) -> None:
    filled(folder, first=4, count=1)
    k = kernels_named("numpy")
    with taken(folder) as (serial, channel):
        sources = [Source(SEEDS[1], named(PLAN, serial), PLAN, c, k, Meter()) for c in (channel, dealt(PLAN, serial))]
        for kind in PLAN.kinds:
            a, b = (source.take(kind) for source in sources)
            for f in kind.fields():
                np.testing.assert_array_equal(a.draw(f.name), b.draw(f.name))


def test_the_last_run_is_readable_after_its_file_is_gone(folder: Path) -> None:
    filled(folder, count=1)
    with taken(folder) as (_, channel):
        assert not list(folder.iterdir())
        same(read(channel), read(dealt(PLAN, 0)))


def test_files_of_several_plans_and_of_one_plan(folder: Path) -> None:
    filled(folder, PLAN, 0, 2)
    filled(folder, TWIN, 2, 1)
    filled(folder, PLAN, 3, 1)
    assert store(folder).left() == {PLAN.digest: 3, TWIN.digest: 1}
    order = []
    for plan in (TWIN, PLAN, PLAN, PLAN):
        with taken(folder, plan) as (serial, channel):
            order.append(serial)
            same(read(channel, plan), read(dealt(plan, serial), plan))
    assert order == [2, 0, 1, 3]
    assert store(folder).take(TWIN) is None


# ---- serials ---------------------------------------------------------------------------------------------------------


def test_a_serial_is_burnt_on_disk_before_take_returns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = filled(folder)
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        part = path.with_suffix(".cursor.part")
        synced.append(part.read_text() if part.exists() else path.with_suffix(".cursor").read_text())
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with taken(folder) as (serial, _):
        assert serial == 0 and synced == ["1\n", "1\n"], "the cursor, then its name in the folder"
    monkeypatch.undo()
    with taken(folder) as (serial, _):  # as another process after a crash
        assert serial == 1


def test_a_cursor_that_cannot_be_written_gives_nothing_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(folder)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            store(folder).take(PLAN)
    assert store(folder).left() == {PLAN.digest: 3}


@pytest.mark.parametrize("text", [b"", b"x", b"1.5", b"\xff"])
def test_a_cursor_that_cannot_be_read_stops_the_store(folder: Path, text: bytes) -> None:
    path = filled(folder)
    path.with_suffix(".cursor").write_bytes(text)
    for use in (lambda: store(folder).take(PLAN), store(folder).left):
        with pytest.raises(StoreError, match=rf"cursor .* cannot be read .*remove it together with {path.name}"):
            use()


def test_a_cursor_never_leads_back(folder: Path) -> None:
    path = filled(folder, first=5)
    path.with_suffix(".cursor").write_text("2\n")
    with taken(folder) as (serial, _):
        assert serial == 5


def test_a_file_that_a_crash_left_used_up_is_removed(folder: Path) -> None:
    path = filled(folder)
    path.with_suffix(".cursor").write_text("3\n")
    assert store(folder).left() == {}
    assert store(folder).take(PLAN) is None and not list(folder.iterdir())


def test_a_new_epoch_is_not_held_up_by_a_cursor_of_the_old_one(folder: Path) -> None:
    """The dealer lost its state and counts from 0 again; the old files are still there."""
    filled(folder)
    with taken(folder) as (serial, _):
        assert serial == 0
    new = store(folder, epoch=OTHER)
    assert new.left() == {} and new.take(PLAN) is None
    new.write(PLAN, 0, 2, NONCE, deal(PLAN))
    assert new.left() == {PLAN.digest: 2} and store(folder).left() == {PLAN.digest: 2}


@pytest.mark.parametrize("other", [{"epoch": OTHER}, {"rank": 0}])
def test_material_of_another_epoch_or_party_is_not_seen(folder: Path, other: dict[str, Any]) -> None:
    filled(folder)
    assert store(folder, **other).left() == {} and store(folder, **other).take(PLAN) is None
    assert store(folder).left() == {PLAN.digest: 3}
    assert store(folder).take(TWIN) is None, "nor of another plan"


# ---- what was altered ------------------------------------------------------------------------------------------------


def refused(folder: Path, plan: Plan = PLAN, **changes: Any) -> None:
    with taken(folder, plan, **changes) as (_, channel), \
            pytest.raises(StoreError, match=r"stored/\d+, step \d.*altered or cut; remove the store's files"):
        read(channel, plan)


def test_an_altered_byte_anywhere_in_a_run_is_refused(folder: Path) -> None:
    """Every byte of the frames' headers and authenticators, and some of every payload."""
    path = filled(folder, count=1)
    raw, at = path.read_bytes(), HEADER
    places = []
    for _, size in FRAMES:
        body = at + HEADER_BYTES
        places += [*range(at, body), body, body + size // 2, *range(body + size - 1, body + size + MAC_BYTES)]
        at = body + size + MAC_BYTES
    assert at == len(raw)
    for place in places:
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        refused(folder)


def test_swapped_frames_are_refused(folder: Path) -> None:
    path = filled(folder, TWIN, count=1)
    raw, half = path.read_bytes(), run_bytes(TWIN) // 2
    path.write_bytes(raw[:HEADER] + raw[HEADER + half :] + raw[HEADER : HEADER + half])
    refused(folder, TWIN)


def test_frames_of_another_serial_are_refused(folder: Path) -> None:
    path = filled(folder, count=2)
    raw, size = path.read_bytes(), run_bytes(PLAN)
    path.write_bytes(raw[:HEADER] + raw[HEADER + size :] + raw[HEADER : HEADER + size])
    refused(folder)
    refused(folder)


def test_material_of_another_seed_is_refused(folder: Path) -> None:
    filled(folder, count=1)
    refused(folder, seed=SEEDS[0])


def test_a_file_cut_while_it_is_read_is_refused(folder: Path) -> None:
    path = filled(folder, count=2)
    with taken(folder) as (_, channel):
        os.truncate(path, HEADER + 10)
        with pytest.raises(StoreError, match="altered or cut"):
            read(channel)


@pytest.mark.parametrize("change", ["", "short", "long", "magic", "version", "count", "header"])
def test_a_file_that_is_no_whole_store_is_named(folder: Path, change: str) -> None:
    path = filled(folder)
    raw = path.read_bytes()
    path.write_bytes({"": b"", "short": raw[:-1], "long": raw + b"\0", "magic": b"X" + raw[1:],
                      "version": raw[:4] + b"\1" + raw[5:], "count": raw[:16] + b"\4" + raw[17:],
                      "header": raw[:40]}[change])
    for use in (lambda: store(folder).take(PLAN), store(folder).left):
        with pytest.raises(StoreError, match=rf"{path.name} is not a .* store.*remove it and deal again"):
            use()


def test_a_header_with_another_first_serial_gives_no_material(folder: Path) -> None:
    path = filled(folder, first=5, count=1)
    raw = path.read_bytes()
    path.write_bytes(raw[:8] + b"\6" + raw[9:])
    refused(folder)


def test_a_file_that_goes_while_the_folder_is_read_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`secformer deal` counts what is left while the party uses it up."""
    gone, path = filled(folder, first=0), filled(folder, first=3)
    real = Shelf.read.__func__  # type: ignore[attr-defined]

    def reading(cls: type[Shelf], at: Path) -> Shelf:
        gone.unlink(missing_ok=True)
        return real(cls, at)  # type: ignore[no-any-return]

    monkeypatch.setattr(module.Shelf, "read", classmethod(reading))
    assert store(folder).left() == {PLAN.digest: 3} and path.exists()


def test_a_store_is_only_read(folder: Path) -> None:
    filled(folder)
    with taken(folder) as (_, channel), pytest.raises(StoreError, match="only read"):
        channel.send(Tag(0, "x", 8, 1), np.zeros(1, np.uint8))
    with taken(folder) as (_, channel):
        channel.abort("enough")


# ---- what stops writing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [PeerLost("the dealer left"), Desync("the dealer gave up")])
@pytest.mark.parametrize("whole", [0, 2])
def test_the_dealer_leaves_in_the_middle_of_a_run(folder: Path, error: Exception, whole: int) -> None:
    """Whole runs are kept, the torn one is not; where not one is whole, that is an error."""
    def leaving(serial: int) -> Receive:
        receive, frames = dealt(PLAN, serial).receive, iter(range(len(FRAMES)))

        def one(tag: Tag, nbytes: int) -> Any:
            if serial == 4 + whole and next(frames) == len(FRAMES) - 1:
                raise error
            return receive(tag, nbytes)
        return one

    if not whole:
        with pytest.raises(StoreError, match=f"nothing could be stored .*{error}; a run of this plan takes .* MB"):
            store(folder).write(PLAN, 4, 5, NONCE, leaving)
        assert not list(folder.iterdir())
        return
    written = store(folder).write(PLAN, 4, 5, NONCE, leaving)
    assert written.runs == whole and written.problem == str(error)
    (path,) = folder.iterdir()
    assert Shelf.read(path).count == whole
    for serial in (4, 5):
        with taken(folder) as (got, channel):
            assert got == serial
            same(read(channel), read(dealt(PLAN, serial)))


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("whole", [0, 2])
def test_a_full_disk_keeps_the_whole_runs(folder: Path, part: float, whole: int) -> None:
    """A limit on the size of files fails a write as a full disk does, wherever in a run it comes."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HEADER + int((whole + part) * run_bytes(PLAN)), limit[1]))
    try:
        if whole:
            written = store(folder).write(PLAN, 0, 5, NONCE, deal(PLAN))
        else:
            with pytest.raises(StoreError, match="nothing could be stored"):
                store(folder).write(PLAN, 0, 5, NONCE, deal(PLAN))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    if whole:
        assert written.runs == whole and "too large" in written.problem
        assert store(folder).left() == {PLAN.digest: whole}
        with taken(folder) as (_, channel):
            same(read(channel), read(dealt(PLAN, 0)))
    assert not list(folder.glob("*.part"))


def test_an_unexpected_error_leaves_no_half_file(folder: Path) -> None:
    def broken(serial: int) -> Receive:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store(folder).write(PLAN, 0, 1, NONCE, broken)
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_written_is_a_store_error(folder: Path) -> None:
    filled(folder, first=0, count=1)
    shutil.copy(next(folder.iterdir()), folder / f"{PLAN.digest[:16]}-{EPOCH[:8]}-{9:012d}.part")
    with pytest.raises(StoreError, match="File exists"):
        store(folder).write(PLAN, 9, 1, NONCE, deal(PLAN))
    assert store(folder).write(PLAN, 9, 1, NONCE, deal(PLAN)).runs == 1, "the half file of a killed process is gone"


# ---- one process for each side ---------------------------------------------------------------------------------------


def test_one_reader_and_one_writer_at_a_time(folder: Path) -> None:
    with reading(folder), writing(folder):
        for again in (reading, writing):
            with pytest.raises(StoreError, match=f"{folder} is in use by process {os.getpid()}"):
                again(folder)
        filled(folder)
        assert store(folder).left() == {PLAN.digest: 3}
    with reading(folder), writing(folder):
        pass


def test_what_is_left_and_the_last_serial(folder: Path) -> None:
    assert store(folder).last() == -1 and store(folder).ranges() == []
    first, second = filled(folder, first=4, count=2), filled(folder, TWIN, first=9, count=1)
    with taken(folder):
        pass
    assert sorted(store(folder).ranges()) == sorted([(first, 5, 6), (second, 9, 10)]) and store(folder).last() == 9


def test_a_file_that_is_put_back_gives_its_runs_out_again(folder: Path) -> None:
    """The store alone cannot know: the seeds of used runs are gone, and `ranges` is compared with those that are
    left."""
    path = filled(folder)
    raw = path.read_bytes()
    for serial in range(3):
        with taken(folder) as (got, _):
            assert got == serial
    path.write_bytes(raw)
    assert store(folder).ranges() == [(path, 0, 3)]


def test_runs_of_one_serial_under_two_nonces_have_no_name_in_common(folder: Path) -> None:
    """A dealer that was set back deals a serial again: under a new nonce, so what was written reads under no other."""
    path = filled(folder, count=1)
    raw, at = path.read_bytes(), HEADER - 16
    path.write_bytes(raw[:at] + bytes(16) + raw[at + 16 :])
    refused(folder)


@pytest.mark.parametrize("nonce", [b"", bytes(15)])
def test_a_nonce_has_its_length(folder: Path, nonce: bytes) -> None:
    with pytest.raises(StoreError, match="a nonce has 16 bytes"):
        store(folder).write(PLAN, 0, 1, nonce, deal(PLAN))


@pytest.mark.parametrize("text", [" 1", "1_0", "+1", "\u0661", "1\n\n"])
def test_a_cursor_is_ascii_digits(folder: Path, text: str) -> None:
    path = filled(folder)
    path.with_suffix(".cursor").write_text(text, "utf-8")
    with pytest.raises(StoreError, match="cannot be read"):
        store(folder).left()


def test_a_header_that_promises_runs_of_another_size_is_refused(tmp_path: Path) -> None:
    """An empty file can promise any number of runs without bytes."""
    path = filled(tmp_path)
    path.write_bytes(replace(Shelf.read(path), count=2**40, size=0).packed())
    with pytest.raises(StoreError, match="has runs of 0 bytes, but those of its plan have"):
        store(tmp_path).take(PLAN)


def test_all_files_are_their_owner_s_alone(folder: Path) -> None:
    store = Store(folder, SEEDS[1], EPOCH)
    store.write(PLAN, 0, 2, NONCE, deal(PLAN))
    taken = store.take(PLAN)
    assert taken is not None
    taken.corrections.close()
    assert {path.suffix: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        ".store": 0o600, ".cursor": 0o600}


# ---- what a party made ahead by itself -------------------------------------------------------------------------------


def ahead(folder: Path, plan: Plan, first: int, epoch: str = EPOCH) -> Path:
    store(folder, epoch=epoch).write(plan, first, 1, NONCE, deal(plan) if epoch == EPOCH else zeros, ahead=True)
    (path,) = folder.glob(f"*{first:012d}-ahead.store")
    return path


def zeros(serial: int) -> Receive:
    return lambda tag, nbytes: np.zeros(nbytes, np.uint8)


def test_runs_made_ahead_are_taken_as_others_and_discarded_oldest_first(folder: Path) -> None:
    by_hand = filled(folder, PLAN, first=0, count=1)
    files = [ahead(folder, plan, first) for first, plan in ((1, TWIN), (2, PLAN), (3, TWIN), (4, PLAN))]
    with taken(folder) as (serial, channel):
        assert serial == 0 and not by_hand.exists()
        same(read(channel), read(dealt(PLAN, 0)))
    kept = filled(folder, PLAN, first=5, count=2)
    assert store(folder).discard(lambda plan: False) is None
    assert store(folder).discard(lambda plan: plan == PLAN.digest) == files[1]
    assert store(folder).discard(lambda plan: True) == files[0]
    with taken(folder) as (serial, _):
        assert serial == 4
    assert [store(folder).discard(lambda plan: True) for _ in range(2)] == [files[2], None]
    assert list(folder.iterdir()) == [kept], "what was dealt by hand stays, and no cursor does"


def test_what_was_made_ahead_in_another_epoch_goes_first_or_last(folder: Path) -> None:
    other, here = ahead(folder, PLAN, 7, OTHER), ahead(folder, PLAN, 3)
    assert store(folder).discard(lambda plan: False) == other and here.exists()


def test_a_run_that_is_discarded_meanwhile_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is opened: the next one is taken. While it is taken: it is taken."""
    first, second = ahead(folder, PLAN, 0), ahead(folder, PLAN, 1)
    following, burn = Store._next, Store._burn

    def discarded(self: Store, path: Path, shelf: Shelf) -> int:
        found = following(self, path, shelf)
        if path == first:
            assert self.discard(lambda plan: True) == first
        return found

    monkeypatch.setattr(Store, "_next", discarded)

    def burnt(self: Store, path: Path, serial: int) -> None:
        burn(self, path, serial)
        assert self.discard(lambda plan: True) == second

    monkeypatch.setattr(Store, "_burn", burnt)
    with taken(folder) as (serial, channel):
        assert serial == 1
        same(read(channel), read(dealt(PLAN, 1)))
    assert not list(folder.iterdir())


def test_bytes_of_all_runs_are_counted(folder: Path) -> None:
    assert store(folder).nbytes() == 0
    filled(folder, PLAN, count=2)
    ahead(folder, PLAN, 9, OTHER)
    (folder / "x.part").write_bytes(bytes(1000))
    assert store(folder).nbytes() == file_bytes(PLAN, 2) + file_bytes(PLAN, 1) + 1000
    (folder / "x.cursor.part").write_bytes(b"7")
    store(folder).tidy()
    assert sorted(path.suffix for path in folder.iterdir()) == [".part", ".store", ".store"]
