"""The journal of used serials: what it refuses, and what it says after a crash, a restored backup and a long life."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples

from secformer.mpc.dealer import serials as module
from secformer.mpc.dealer.serials import Serials
from secformer.mpc.errors import ReusedRandomness, StoreError

EPOCH = "ab" * 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "serials.log"


JOURNALS: list[Serials] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while JOURNALS:
        JOURNALS.pop().close()


def opened(path: Path) -> Serials:
    """The journal as the next process reads it."""
    JOURNALS.append(Serials(path))
    return JOURNALS[-1]


def test_a_new_journal_knows_nothing(path: Path) -> None:
    journal = opened(path)
    assert journal.last(EPOCH, "live") == -1
    journal.burn(EPOCH, "live", 0)
    assert journal.last(EPOCH, "live") == 0 and journal.last(EPOCH, "stored") == -1
    assert journal.last("cd" * 16, "live") == -1
    assert path.parent.stat().st_mode & 0o077 == 0


def test_live_serials_only_rise(path: Path) -> None:
    journal = opened(path)
    journal.burn(EPOCH, "live", 4)
    for serial in (4, 3, 0, -1):
        with pytest.raises(ReusedRandomness, match=rf"serial {serial} \(live\) of epoch {EPOCH}.*restored from a back"):
            journal.burn(EPOCH, "live", serial)
        with pytest.raises(ReusedRandomness):
            journal.burn_alone(EPOCH, "live", serial)
    journal.burn(EPOCH, "live", 9)
    assert path.read_text() == f"{EPOCH} live 4\n{EPOCH} live 9\n", "what was refused is not written"


def test_stored_serials_come_in_any_order_and_once(path: Path) -> None:
    """Material for two shapes lies in a store; the one that was stored later may be asked for first."""
    journal = opened(path)
    for serial in (10, 0, 11, 1):
        journal.burn_alone(EPOCH, "stored", serial)
    for again in (journal, opened(path)):
        for serial in (0, 1, 10, 11):
            with pytest.raises(ReusedRandomness):
                again.burn_alone(EPOCH, "stored", serial)
        assert again.last(EPOCH, "stored") == 11
    with pytest.raises(ReusedRandomness):
        journal.burn(EPOCH, "stored", 5)  # would mark those that wait below as used
    opened(path).burn_alone(EPOCH, "stored", 2)


@examples(150)
@given(st.lists(st.tuples(st.sampled_from(["burn", "alone", "open", "tidy"]), st.integers(0, 12)), max_size=30))
def test_no_serial_twice_whatever_happens(tmp_path_factory: pytest.TempPathFactory,
                                          steps: list[tuple[str, int]]) -> None:
    """Against a set: a serial is given once, also after the journal was read again, or made short."""
    path = tmp_path_factory.mktemp("journal") / "serials.log"
    journal, used = opened(path), set[int]()
    for step, serial in steps:
        if step in ("open", "tidy"):
            journal.close()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, "KEPT", 0 if step == "tidy" else 1000)
                journal = opened(path)
            continue
        free = serial > max(used, default=-1) if step == "burn" else serial not in used
        do = journal.burn if step == "burn" else journal.burn_alone
        if free:
            do(EPOCH, "s", serial)
            used |= {serial} if step == "alone" else set(range(serial + 1))
        else:
            with pytest.raises(ReusedRandomness):
                do(EPOCH, "s", serial)
        assert journal.last(EPOCH, "s") == max(used, default=-1)
    journal.close()


@pytest.mark.parametrize("how", ["burn", "burn_alone"])
def test_a_serial_is_synced_before_burn_returns(path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, seen = opened(path), list[str]()
    real = os.fsync

    def fsync(handle: int) -> None:
        seen.append(path.read_text())
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    getattr(journal, how)(EPOCH, "live", 7)
    assert len(seen) == 1 and seen[0].endswith("7\n"), "the line is written when the sync begins"


def test_a_serial_that_was_not_synced_is_not_marked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    journal = opened(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            journal.burn(EPOCH, "live", 0)
    journal.burn(EPOCH, "live", 0)  # the caller did not use it


@pytest.mark.parametrize("whole", ["live 7", "stored =7"])
def test_a_torn_last_line_is_dropped(path: Path, whole: str) -> None:
    """Wherever a crash cuts the line that was being written, the former ones stand and the journal goes on."""
    line = f"{EPOCH} {whole.split()[0]} 123456"
    for cut in range(1, len(line) + 1):
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{EPOCH} {whole}\n" + line[:cut])
        journal = opened(path)
        space = whole.split()[0]
        assert journal.last(EPOCH, space) == 7
        assert path.read_text() == f"{EPOCH} {whole}\n"
        journal.burn_alone(EPOCH, space, 123456)
        journal.close()
        again = opened(path)
        assert again.last(EPOCH, space) == 123456
        again.close()


@pytest.mark.parametrize("bad", ["", "x", f"{EPOCH} live", f"{EPOCH} live x", f"{EPOCH} live -1", f"{EPOCH} live 1_0",
                                 f"{EPOCH} live 1 2", f"{EPOCH}  live 1", f"{EPOCH} live 1-2", f"{EPOCH} live =",
                                 "\0" * 40, f"{EPOCH} live é"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_whole_line_that_is_no_serial_stops_the_role(path: Path, bad: str, place: int) -> None:
    """Only a line without its end was cut; another one that cannot be read was synced, and may hide a used serial."""
    lines = [f"{EPOCH} live 1", f"{EPOCH} live 2"]
    lines.insert(place, bad)
    path.parent.mkdir()
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"serials\.log cannot be read .*remove this role's state folder"):
        opened(path)
    assert path.read_bytes() == before, "the evidence stays"


def test_a_journal_that_is_a_folder_stops_the_role(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be read"):
        opened(path)


def test_a_restored_backup_is_noticed_by_the_peer(tmp_path: Path) -> None:
    """A party whose state was restored forgets what it used; the other party's journal does not."""
    mine, peers = opened(tmp_path / "a" / "serials.log"), opened(tmp_path / "b" / "serials.log")
    for journal in (mine, peers):
        journal.burn(EPOCH, "live", 0)
    backup = (tmp_path / "a" / "serials.log").read_bytes()
    for journal in (mine, peers):
        journal.burn(EPOCH, "live", 1)
    mine.close()
    (tmp_path / "a" / "serials.log").write_bytes(backup)
    restored = opened(tmp_path / "a" / "serials.log")
    restored.burn(EPOCH, "live", 1)  # it cannot know
    with pytest.raises(ReusedRandomness, match="restored from a backup, or its peer's"):
        peers.burn(EPOCH, "live", 1)


def test_a_long_journal_is_shortened_and_says_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(path)
    for serial in range(30):
        journal.burn(EPOCH, "live", 2 * serial)
        journal.burn_alone("other", "stored", serial + 100)
    journal.burn_alone("other", "stored", 5)
    journal.close()
    long = path.read_text()
    monkeypatch.setattr(module, "KEPT", 61)
    opened(path).close()
    assert path.read_text() == long, "as many lines as may stay"
    monkeypatch.setattr(module, "KEPT", 60)
    again = opened(path)
    assert sorted(path.read_text().splitlines()) == [f"{EPOCH} live 58", "other stored =100-129", "other stored =5-5"]
    assert again.last(EPOCH, "live") == 58
    for serial in (5, 100, 129):
        with pytest.raises(ReusedRandomness):
            again.burn_alone("other", "stored", serial)
    again.burn_alone("other", "stored", 99)
    assert not list(path.parent.glob("*.part"))


def test_ranges_that_end_alike_are_all_remembered(path: Path) -> None:
    """Found by fuzzing: a shorter range took the place of a longer one, whose first serials were given out again."""
    path.parent.mkdir()
    path.write_text("".join(f"{EPOCH} stored ={each}\n" for each in ("5-9", "8-9", "3-4", "4-9")), "ascii")
    journal = Serials(path)
    JOURNALS.append(journal)
    for serial in range(3, 10):
        with pytest.raises(ReusedRandomness):
            journal.burn_alone(EPOCH, "stored", serial)
    journal.burn_alone(EPOCH, "stored", 2)


@pytest.mark.parametrize("serial", ["=9-5", "\n", "9" * 5000, "=" + "9" * 5000])
def test_a_line_that_names_no_serials_is_refused(path: Path, serial: str) -> None:
    path.parent.mkdir()
    path.write_text(f"{EPOCH} live {serial}\n", "ascii")
    with pytest.raises(StoreError, match="is not a used serial"):
        Serials(path)


def test_a_journal_is_its_owner_s_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kept in (module.KEPT, 0):  # the second time, it is written anew
        monkeypatch.setattr(module, "KEPT", kept)
        with closing(Serials(path)) as journal:
            journal.burn("ab", "live", 1 + journal.last("ab", "live"))
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o644)
