"""State that was restored, cloned or set back, with real processes: no mask serves twice, or the operator is stopped.

A party asks the same question each time, with the same words for each party. So whatever a party opens would repeat if
masks did. The control shows that it does where nonces repeat.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from roles_lab import right, serials, until
from tapped_lab import ROLES, TappedRoles

from secformer import demo_model
from secformer.cli import main

TEXT = "A wonderful film."
ALL = tuple((role, "state") for role in ROLES)


@pytest.fixture(scope="module")
def tapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TappedRoles]:
    with TappedRoles(tmp_path_factory.mktemp("rollback"), demo_model(),
                     settings={"deadline": 20.0, "dealer_wait": 5.0, "in_flight": 1}) as roles:
        roles.wait_ready()
        yield roles


@pytest.fixture
def up(tapped: TappedRoles) -> TappedRoles:
    tapped.nonces_repeat = False
    tapped.start_all()
    return tapped


def opened(up: TappedRoles) -> set[str]:
    """What party 1 opens for the question: a run's messages, all of them different."""
    out, words = up.asked(TEXT)
    right(out, TEXT)
    assert len(words) > 50 and len(set(words)) == len(words)
    return set(words)


def test_the_same_question_twice_opens_other_words(up: TappedRoles) -> None:
    assert not opened(up) & opened(up)


@pytest.mark.parametrize("repeat", [False, True], ids=["fresh nonces", "nonces that repeat"])
def test_all_three_roles_set_back(up: TappedRoles, repeat: bool) -> None:
    """The same epoch, serial, seed and question. With nonces that repeat, every word does: the control."""
    up.stop_all()
    up.nonces_repeat = repeat
    with up.copied(*ALL) as restore:
        up.start_all()
        first = opened(up)
        used = {role: serials(up, role)[-1] for role in ROLES}
        up.stop_all()
        restore()
        up.start_all()
        again = opened(up)
        assert {role: serials(up, role)[-1] for role in ROLES} == used, "the serial is used again"
    assert again == first if repeat else not again & first
    up.stop_all()


@pytest.mark.parametrize("role", ROLES)
def test_one_role_restored_from_a_backup(up: TappedRoles, role: str) -> None:
    """An older state, and then the newer one again, as two clones of a machine that take turns."""
    up.stop(role)
    with up.copied((role, "state")) as restore_older:
        up.start_all()
        seen = opened(up)
        up.stop(role)
        newer = up.folder / "newer"
        shutil.copytree(up.role_folder(role) / "state", newer)
        restore_older()
        up.start_all()
        words = opened(up)
        assert not words & seen
        seen |= words
        up.stop(role)
        shutil.rmtree(up.role_folder(role) / "state")
        newer.rename(up.role_folder(role) / "state")
        up.start_all()
        assert not opened(up) & seen


@pytest.mark.parametrize("role", ROLES)
def test_a_second_process_on_the_same_folder_does_not_start(up: TappedRoles, role: str) -> None:
    done = subprocess.run(up.command(role), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert re.search(rf"the state folder .*{role}/state is in use by process {up.processes[role].pid}", done.stderr)
    opened(up)


def test_a_second_party_on_the_same_store_does_not_start(up: TappedRoles) -> None:
    """Another state, of a clone, but one store."""
    path = up.role_folder("party1") / "clone.toml"
    path.write_text(re.sub(r'(?m)^state = .*$', f'state = "{up.folder}/elsewhere"', up.settings("party1").read_text()))
    command = [*up.command("party1")[:-1], str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert re.search(rf"the store .*party1/store is in use by process {up.processes['party1'].pid}", done.stderr)


def stopped(up: TappedRoles, said: str) -> None:
    """Party 1 says that it does not go on, and why."""
    until(lambda: re.search(said, up.ready(1)) is not None, 60)


@pytest.mark.parametrize(("kinds", "whose"), [
    ((("party1", "store"),), "this party"),
    ((("party1", "store"), ("party1", "state")), "party0"),
], ids=["the store", "the store and the party's state"])
def test_a_restored_store_stops_the_operator(up: TappedRoles, kinds: tuple[tuple[str, str], ...], whose: str,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    tokens = int(up.asked(TEXT)[0].attention_mask.sum())
    deal = ["deal", "--settings", str(up.settings("party1")), "--lengths", str(tokens)]
    assert main([*deal, "--count", "2"]) == 0
    up.stop("party1")
    with up.copied(*kinds) as restore:
        up.start_all()
        stored = sum(" stored =" in line for line in serials(up, "party0"))
        opened(up)
        assert sum(" stored =" in line for line in serials(up, "party0")) == stored + 1
        up.stop("party1")
        restore()
        up.start("party1")
        stopped(up, rf"would give out runs from stored serial \d+ on, but {whose} has used.*remove the files")
    up.stop("party1")
    shutil.rmtree(up.role_folder("party1") / "store")
    up.start_all()
    opened(up)
    assert main([*deal, "--count", "1"]) == 0
    opened(up)
    capsys.readouterr()


def test_a_dealer_set_back_deals_stored_serials_above_all_that_were(up: TappedRoles,
                                                                    capsys: pytest.CaptureFixture[str]) -> None:
    """`secformer deal` says which serials it has, so that the dealer does not give them again."""
    tokens = int(up.asked(TEXT)[0].attention_mask.sum())
    deal = ["deal", "--settings", str(up.settings("party1")), "--count", "1", "--lengths", str(tokens)]
    up.stop("dealer")
    with up.copied(("dealer", "state")) as restore:
        up.start_all()
        assert main(deal) == 0
        seen = opened(up)
        up.stop("dealer")
        restore()
        up.start_all()
    assert main(deal) == 0
    words = opened(up)
    assert not words & seen
    lines = [line for line in serials(up, "party0") if " stored =" in line]
    assert len(set(lines)) == len(lines)
    capsys.readouterr()
