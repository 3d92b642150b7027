"""New epochs while the roles serve: what is replaced and when, what is left of the old one, and what a crash leaves."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from roles_lab import Steady, ask, log_lines, no_serial_twice, right, until

from secformer.cli import main
from secformer.mpc.dealer.names import LIVE
from secformer.mpc.errors import InputError, ProtocolError, StoreError
from secformer.roles.epoch_watch import EpochWatch
from secformer.roles.epochs import State
from secformer.roles.rotation import DAY, ORDER, ORDERED, TOO_OLD, Rotation, rotate
from secformer.roles.trial import ROLES, LocalRoles

MODEL, PLAN = "a" * 64, "b" * 64


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with closing(State(tmp_path / "state")) as state:
        yield state


# ---- what is replaced, and when --------------------------------------------------------------------------------------


def test_an_order_replaces_every_epoch_once(state: State) -> None:
    old = [state.fresh(MODEL, PLAN), state.fresh("c" * 64, PLAN)]
    state.burn(old[0], LIVE, 3)
    assert not list(Rotation(state, 0).replaced()), "nothing without an order"
    (state.folder / ORDER).touch()
    files = {path: path.open("rb") for path in state.folder.glob("epoch-*.json")}
    found = list(Rotation(state, 0).replaced())
    assert [each.old for each in found] == old and {each.why for each in found} == {ORDERED}
    assert not (state.folder / ORDER).exists() and not list(Rotation(state, 0).replaced())
    for each in found:
        assert each.new.name != each.old.name and not set(each.new.seeds.values()) & set(each.old.seeds.values())
        assert state.epoch(each.model, each.plan) == each.new and each.new.left(LIVE)[0][0] == 0
    for file in files.values():
        with file:
            assert not any(file.read()), "the old seeds' blocks are overwritten"
    text = "".join(path.read_text() for path in files)
    assert not any(seed.hex() in text for each in old for seed in each.seeds.values())


def test_epochs_that_were_not_used_since_the_start_are_replaced_too(state: State) -> None:
    old = state.fresh(MODEL, PLAN)
    state.close()
    with closing(State(state.folder)) as later:
        (state.folder / ORDER).touch()
        (only,) = Rotation(later, 0).replaced()
        assert (only.model, only.plan, only.old) == (MODEL, PLAN, old)


def test_epochs_that_are_too_old_are_replaced(state: State) -> None:
    first = state.fresh(MODEL, PLAN)
    now = first.began
    rotation = Rotation(state, 3, lambda: now)
    now += 3 * DAY - 1
    assert not list(rotation.replaced())
    state.close()
    with closing(State(state.folder)) as later:  # the age is on disk
        rotation = Rotation(later, 3, lambda: now)
        assert not list(rotation.replaced())
        now += 1
        (only,) = rotation.replaced()
        assert (only.old, only.why) == (first, TOO_OLD)
        assert not list(Rotation(later, 0, lambda: now + 1e9).replaced()), "0 days: never"


def test_an_epoch_of_unknown_age_is_too_old(state: State) -> None:
    state.fresh(MODEL, PLAN)
    state.close()
    (file,) = state.folder.glob("epoch-*.json")
    facts = json.loads(file.read_text())
    del facts["began"]
    file.write_text(json.dumps(facts))
    with closing(State(state.folder)) as later:
        assert len(list(Rotation(later, 10_000).replaced())) == 1


def test_a_disk_that_is_full_in_the_middle(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was replaced stays so; the order stays until the rest is, too."""
    old = [state.fresh(MODEL, PLAN), state.fresh("c" * 64, PLAN)]
    (state.folder / ORDER).touch()
    steps = Rotation(state, 0).replaced()
    first = next(steps)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            next(steps)
    assert (state.folder / ORDER).exists() and state.epoch(first.model, PLAN) == first.new
    assert state.epoch("c" * 64, PLAN) == old[1]
    assert len(list(Rotation(state, 0).replaced())) == 2 and not (state.folder / ORDER).exists()


def test_an_order_waits_for_the_dealer(state: State) -> None:
    with pytest.raises(InputError, match="holds no epochs: give the settings file of a dealer that has served"):
        rotate(state.folder)
    old = state.fresh(MODEL, PLAN)
    with pytest.raises(InputError, match=r"no dealer has begun new epochs within 0\.1 s\. The order stands: .* remove"):
        rotate(state.folder, 0.1)
    (state.folder / "epoch-x.json").write_text("{")
    with pytest.raises(StoreError, match=r"epoch-x\.json cannot be read"):
        rotate(state.folder)
    (state.folder / "epoch-x.json").unlink()

    def dealer() -> None:
        time.sleep(0.2)
        list(Rotation(state, 0).replaced())

    thread = threading.Thread(target=dealer)
    thread.start()
    found = rotate(state.folder)
    thread.join()
    new = state.epoch(MODEL, PLAN)
    assert new is not None and found.epochs == [(MODEL, old.name, new.name)] and new != old


def test_looks_go_on_until_they_are_ended() -> None:
    looked, answers = threading.Semaphore(0), [False, True, False]

    def outdated() -> bool:
        looked.release()
        return answers.pop(0) if answers else False

    watch = EpochWatch(outdated, 0.01)
    assert not watch.over
    watch.start()
    until(lambda: watch.over)
    for _ in range(5):
        assert looked.acquire(timeout=30)
    assert watch.over, "a look that finds nothing takes nothing back"
    watch.joining()
    assert not watch.over
    watch.close()
    watch._thread.join(30)
    assert not watch._thread.is_alive()


# ---- all roles -------------------------------------------------------------------------------------------------------


def epochs(up: LocalRoles) -> list[str]:
    """The epoch that each role keeps."""
    found = []
    for role in ROLES:
        (file,) = (up.role_folder(role) / "state").glob("epoch-*.json")
        found.append(str(json.loads(file.read_text())["epoch"]))
    return found


def keys(up: LocalRoles) -> set[str]:
    """All that the roles' state folders hold of seeds."""
    found = set[str]()
    for role in ROLES:
        (file,) = (up.role_folder(role) / "state").glob("epoch-*.json")
        facts = json.loads(file.read_text())
        found |= set(facts["seeds"].values())
        found |= {row[-1] for by_rank in facts["runs"].values() for rows in by_rank.values() for row in rows}
    return found


def test_an_epoch_gives_way_while_clients_ask(up: LocalRoles, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing fails; what was stored is gone, old keys are nowhere; logs, audit logs and metrics tell of it."""
    right(ask(up))
    order = ["epoch", "rotate", "--settings", str(up.settings("dealer")), "--json"]
    assert main(["deal", "--settings", str(up.settings("party1")), "--lengths", "9", "--count", "2"]) == 0
    store = up.role_folder("party1") / "store"
    assert list(store.glob("*.store"))
    capsys.readouterr()
    before, metric = keys(up), _new_epochs(up)
    with Steady(up, "client") as steady:
        assert main(order) == 0
        (told,) = json.loads(capsys.readouterr().out)["epochs"]
        steady.more()
        assert set(epochs(up)) == {told["new"]} and told["model"] == up.public.digest
    assert not keys(up) & before and {path.suffix for path in store.iterdir()} == {".lock"}
    assert {why: count - metric[why] for why, count in _new_epochs(up).items()} == {
        "first": 0.0, "ordered": 1.0, "too old": 0.0}
    for role in ROLES:
        lines = [json.loads(line) for file in (up.role_folder(role) / "audit").glob("*.jsonl")
                 for line in file.read_text().splitlines()]
        noted = [line for line in lines if line["event"] == "epoch"][-1]
        assert (noted["epoch"], noted["model"]) == (told["new"], up.public.digest)
        assert role != "dealer" or (noted["instead of"], noted["why"]) == (told["old"], "ordered")
    assert not any(line["event"] in ("link lost", "unexpected") and told["new"] in str(line)
                   for role in ROLES for line in log_lines(up, role))


def _new_epochs(up: LocalRoles) -> dict[str, float]:
    connection = HTTPConnection("127.0.0.1", up.ports["dealer_metrics"], timeout=20)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines
            if line.startswith("secformer_new_epochs_total{")}


def test_parties_that_nobody_asks_learn_of_it_too(up: LocalRoles) -> None:
    old = epochs(up)[0]
    assert main(["epoch", "rotate", "--settings", str(up.settings("dealer"))]) == 0
    until(lambda: len(set(epochs(up))) == 1 and old not in epochs(up), 60)
    until(lambda: up.ready(0) == up.ready(1) == "")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_killed_in_the_middle_of_it(up: LocalRoles, role: str) -> None:
    """After its next start, all three are in one epoch, a new one, and no serial was used twice."""
    until(lambda: len(set(epochs(up))) == 1, 60)
    old, opened = epochs(up)[0], _opened(up, role)
    if role == "dealer":  # at any place: before it has seen the order, between the files, or after them
        (up.role_folder("dealer") / "state" / ORDER).touch()
        time.sleep(0.3)
    else:
        assert main(["epoch", "rotate", "--settings", str(up.settings("dealer"))]) == 0
        asking = threading.Thread(target=_asks, args=(up,), daemon=True)  # so that the parties learn of it at once
        asking.start()
        until(lambda: '"link renewed"' in up.log(role).read_text()[opened:], 60)
    up.stop(role, signal.SIGKILL)
    up.start(role)
    up.wait_ready()
    until(lambda: _asks(up), 60)
    until(lambda: len(set(epochs(up))) == 1, 60)
    assert old not in epochs(up) and not (up.role_folder("dealer") / "state" / ORDER).exists()
    right(ask(up))
    no_serial_twice(up)


def _opened(up: LocalRoles, role: str) -> int:
    return len(up.log(role).read_text())


def _asks(up: LocalRoles) -> bool:
    try:
        right(ask(up))
    except ProtocolError:
        return False
    return True


