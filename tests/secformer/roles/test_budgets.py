"""Budgets of clients: what is counted, on disk and across days, and what a spent one says."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from secformer.mpc.errors import StoreError
from secformer.roles import budgets as module
from secformer.roles.budgets import DAY, Budget, Budgets, BudgetSpent, Ledger

NOON = 20_000 * DAY + DAY / 2
BUDGETS = Budgets(Budget(3, 10), {"alice": Budget(None, 4), "free": Budget()})


Open = Callable[..., Ledger]


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(clock: Clock) -> Iterator[Open]:
    """Opens ledgers, and closes them in the end."""
    ledgers: list[Ledger] = []

    def open_(path: Path, budgets: Budgets = BUDGETS) -> Ledger:
        ledgers.append(Ledger(budgets, path, clock))
        return ledgers[-1]

    yield open_
    for ledger in ledgers:
        ledger.close()


def spend(ledger: Ledger, client: str, texts: int) -> None:
    ledger.reserve(client, texts).spend()


def test_requests_and_texts_are_counted(tmp_path: Path, opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    ledger = opened(tmp_path / "log")
    for _ in range(3):
        spend(ledger, "bob", 1)
    for _ in range(2):
        with pytest.raises(BudgetSpent, match="this client may ask 3 requests per day and has asked 3, so 1 more are "
                                              "too many; its budget renews at 2024-10-05 00:00 UTC") as caught:
            ledger.reserve("bob", 1)
    assert caught.value.renews == DAY / 2
    spend(ledger, "alice", 3)
    with pytest.raises(BudgetSpent, match="may ask 4 texts per day and has asked 3, so 2 more are too many"):
        ledger.reserve("alice", 2)
    spend(ledger, "alice", 1)
    for _ in range(20):
        spend(ledger, "free", 100)
    assert ledger.spent() == 2 and ledger.share() == 1.0
    told = [record.__dict__["fields"]["client"] for record in caplog.records if record.getMessage() == "budget spent"]
    assert told == ["bob", "alice"], "once a day"


def test_what_is_here_counts_and_what_was_not_answered_does_not(tmp_path: Path, opened: Open) -> None:
    ledger = opened(tmp_path / "log")
    here = [ledger.reserve("bob", 1) for _ in range(3)]
    with pytest.raises(BudgetSpent):
        ledger.reserve("bob", 1)
    here[0].release()
    here[0].release()  # changes nothing more
    spend(ledger, "bob", 1)
    here[1].release()
    here[2].spend()
    here[2].release()  # it was answered
    spend(ledger, "bob", 1)
    with pytest.raises(BudgetSpent):
        ledger.reserve("bob", 1)


def test_a_restart_forgets_nothing(tmp_path: Path, opened: Open) -> None:
    ledger = opened(tmp_path / "state" / "log")
    spend(ledger, "bob", 2)
    spend(ledger, "bob", 3)
    ledger.reserve("bob", 1)  # and is killed before it answers
    again = opened(tmp_path / "state" / "log")
    assert again.share() == 2 / 3
    with pytest.raises(BudgetSpent, match="may ask 10 texts per day and has asked 5, so 6"):
        again.reserve("bob", 6)
    spend(again, "bob", 5)
    with pytest.raises(BudgetSpent):
        opened(tmp_path / "state" / "log").reserve("bob", 1)


@pytest.mark.parametrize(("later", "renewed"), [(DAY / 2 - 1, False), (DAY / 2, True), (3 * DAY, True),
                                                (-DAY, False), (-3 * DAY, False)])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_day_ends_at_midnight_and_a_clock_turned_back_renews_nothing(
        tmp_path: Path, opened: Open, clock: Clock, later: float, renewed: bool, restarted: bool) -> None:
    ledger = opened(tmp_path / "log")
    for _ in range(3):
        spend(ledger, "bob", 1)
    clock.now += later
    if restarted:
        ledger = opened(tmp_path / "log")
    if renewed:
        assert ledger.share() == 0.0
        spend(ledger, "bob", 10)
        assert len((tmp_path / "log").read_text().splitlines()) == 1, "yesterday is forgotten"
    else:
        with pytest.raises(BudgetSpent) as caught:
            ledger.reserve("bob", 1)
        assert caught.value.renews == pytest.approx(DAY / 2 - later)


def test_what_begins_before_midnight_is_of_the_day_that_answers_it(tmp_path: Path, opened: Open, clock: Clock) -> None:
    ledger = opened(tmp_path / "log")
    late = ledger.reserve("bob", 10)
    clock.now += DAY
    late.spend()
    with pytest.raises(BudgetSpent):
        ledger.reserve("bob", 1)


def test_a_clock_that_was_ahead_is_said(tmp_path: Path, opened: Open, clock: Clock,
                                        caplog: pytest.LogCaptureFixture) -> None:
    clock.now += 9 * DAY
    spend(opened(tmp_path / "log"), "bob", 1)
    clock.now -= 9 * DAY
    opened(tmp_path / "log")
    assert any("a later day than today" in str(record.__dict__.get("fields")) for record in caplog.records)


def test_a_line_that_a_crash_cut_off_was_not_answered(tmp_path: Path, opened: Open) -> None:
    ledger = opened(tmp_path / "log")
    spend(ledger, "bob", 1)
    with (tmp_path / "log").open("a") as file:
        file.write('[20000, "bob", 1')
    assert opened(tmp_path / "log").share() == 1 / 3
    assert len((tmp_path / "log").read_text().splitlines()) == 1


@pytest.mark.parametrize("junk", ["{}\n", "x\n", "[1, 2]\n", '[20000, "bob", 1, -1]\n', '[20000, 3, 1, 1]\n',
                                  '[20000, "bob", true, 1]\n', '[20000.5, "bob", 1, 1]\n', "\xff\n", "\n",
                                  "[" * 5000 + "\n",
                                  '[20000, "\\ud800", 1, 1]\n', f'[{10**12}, "bob", 1, 1]\n',
                                  f'[20000, "bob", 1, {10**400}]\n'])
def test_a_journal_that_cannot_be_read_stops_the_start(tmp_path: Path, junk: str) -> None:
    (tmp_path / "log").write_bytes(junk.encode("latin-1"))
    with pytest.raises(StoreError, match=r"says what clients have asked today, cannot be read .* remove it to renew"):
        Ledger(BUDGETS, tmp_path / "log")
    assert (tmp_path / "log").read_bytes() == junk.encode("latin-1")


def test_counts_have_a_highest_value(tmp_path: Path, opened: Open) -> None:
    """A journal that is summed up can be read again."""
    (tmp_path / "log").write_text(f'[20000, "bob", 1, {module.MOST}]\n' * 2)
    for _ in range(2):
        with pytest.raises(BudgetSpent, match=f"has asked {module.MOST}"):
            opened(tmp_path / "log").reserve("bob", 1)


def test_a_long_journal_is_summed_up(tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 5)
    ledger = opened(tmp_path / "log", Budgets(Budget(1000)))
    for _ in range(50):
        spend(ledger, 'odd "name"\n', 2)
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(rows) <= 6 and sum(row[2] for row in rows) == 50 and sum(row[3] for row in rows) == 100


def test_an_answer_that_cannot_be_counted_is_not_given(tmp_path: Path, opened: Open,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = opened(tmp_path / "log")
    here = ledger.reserve("bob", 1)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device.*make room on the disk"):
        here.spend()


def test_without_budgets_nothing_is_written(tmp_path: Path, opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        ledger = opened(tmp_path / "log", Budgets())
        for _ in range(10):
            spend(ledger, "bob", 10**9)
    assert (tmp_path / "log").read_text() == "" and not caplog.records and ledger.share() == 0.0


def test_the_journal_is_its_owner_s_alone(tmp_path: Path, opened: Open, clock: Clock) -> None:
    path = tmp_path / "log"
    for _ in range(2):
        ledger = opened(path)
        assert path.stat().st_mode & 0o777 == 0o600
        spend(ledger, "bob", 1)
        clock.now += DAY
        spend(ledger, "bob", 1)
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o644)  # as an older version left it
