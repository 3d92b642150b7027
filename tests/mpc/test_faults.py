"""What goes wrong at a party, on the line or at the keyboard: all hear of it, nobody hangs, nothing is reused."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpc_lab import KERNELS, SEEDS, Tap, Words, compute, duo, kernels_named, quick_local_pair, rank_of, run

from secformer.mpc.dealer.source import Source
from secformer.mpc.errors import Desync, PeerLost, ProtocolError, ReusedRandomness, ShapeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.functions import Exponential, Series
from secformer.mpc.meter import Meter
from secformer.mpc.net.channel import local_pair
from secformer.mpc.party import Party
from secformer.mpc.session import CLIENT
from secformer.mpc.sessions.secure import SecureSession
from secformer.mpc.simulate import World, _Run

F = Series(5, (0.0, 1.0), (0.0, 0.5))


def words(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.uint64)


def party_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name in ("party 0", "party 1", "dealer") and t.is_alive()]


# ---- different programs ---------------------------------------------------------------------------------------------

PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "square of 3": lambda s: s.square(s.accept(words(3))),
    "square of 4": lambda s: s.square(s.accept(words(4))),
    "narrow square": lambda s: s.square(s.accept(words(3)), magnitude=3),
    "product": lambda s: s.mul(s.accept(words(3)), s.accept(words(3))),
    "truncation": lambda s: s.settle(s.accept(words(3), frac=32, width=48)),
    "series": lambda s: s.series(s.accept(words(3)), [F]),
    "exponential": lambda s: s.exponential(s.accept(words(3)), Exponential(5, 0.0)),
    "less": lambda s: s.less(s.accept(words(3)), [0.0], bound=4.0),
    "less in a wider window": lambda s: s.less(s.accept(words(3)), [0.0], bound=8.0),
    "relu": lambda s: s.relu(s.accept(words(3)), bound=100.0),
    "reveal": lambda s: [s.reveal(s.accept(words(3)), 0), s.square(s.accept(words(3)))],
    "share": lambda s: [s.share(np.zeros(3), 1, shape=(3,)), s.square(s.accept(words(3)))],
}


@pytest.mark.parametrize("other", [n for n in PROGRAMS if n != "square of 3"])
@pytest.mark.parametrize("swapped", [False, True])
def test_different_programs_are_a_desync_on_both_sides(other: str, swapped: bool, pair: Any) -> None:
    both = [PROGRAMS["square of 3"], PROGRAMS[other]]
    endings = duo(both[::-1] if swapped else both, ends=pair("party 0", "party 1", deadline=5.0))
    assert [type(e.error) for e in endings] == [Desync, Desync], [repr(e.error) for e in endings]


def test_the_story_names_both_sides() -> None:
    a, b = (str(e.error) for e in duo([PROGRAMS["square of 3"], PROGRAMS["less"]]))
    for story in (a, b):
        assert "product of 3 elements at 48 bits" in story
        assert "compare of 3 elements at 19 bits" in story


def test_a_party_that_leaves_early_is_missed(pair: Any) -> None:
    """The one that still waits gets an error; the one that is done has nothing to complain of."""

    def more(s: Any) -> Any:
        x = s.square(s.accept(words(3)))
        return s.square(s.settle(x)[0])

    endings = duo([PROGRAMS["square of 3"], more], ends=pair("party 0", "party 1", deadline=0.5))
    assert endings[0].error is None
    assert isinstance(endings[1].error, ProtocolError)


def test_the_same_program_in_two_formats_is_a_desync() -> None:
    errors = [e.error for e in duo([PROGRAMS["square of 3"], lambda s: s.square(s.accept(words(3)), magnitude=22)])]
    assert all(isinstance(e, Desync) for e in errors)


# ---- peers that vanish ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1])
def test_a_program_that_raises_at_one_party_ends_the_run(rank: int, pair: Any) -> None:
    def program(s: Any, x: Any) -> Any:
        y = s.square(s.accept(x))
        if rank_of(s) == rank:
            raise ZeroDivisionError("boom")
        return s.reveal(y, CLIENT)

    with pytest.raises(ZeroDivisionError, match="boom"):
        World(connect=pair).run(program, words(3), words(3))
    assert not party_threads()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_silent_party_is_lost_at_the_deadline(rank: int, pair: Any) -> None:
    gate = threading.Event()

    def quiet(s: Any) -> Any:
        if rank_of(s) is not None:
            gate.wait(10)
        return PROGRAMS["square of 3"](s)

    programs = [PROGRAMS["square of 3"], PROGRAMS["square of 3"]]
    programs[rank] = quiet
    threading.Timer(1.0, gate.set).start()
    endings = duo(programs, ends=pair("party 0", "party 1", deadline=0.2))
    assert isinstance(endings[1 - rank].error, PeerLost)
    assert f"party {rank} sent nothing for 0.2 s" in str(endings[1 - rank].error)


def test_a_line_that_is_cut_loses_both() -> None:
    ends = quick_local_pair("party 0", "party 1", deadline=5.0)
    for end in ends:
        end.close()
    endings = duo([PROGRAMS["square of 3"]] * 2, ends=ends)
    assert all(isinstance(e.error, PeerLost | Desync) for e in endings)
    assert any(isinstance(e.error, PeerLost) for e in endings)


def test_the_world_stays_usable_after_a_failed_run() -> None:
    world = World()

    def broken(s: Any, x: Any) -> Any:
        y = s.square(s.accept(x))
        if rank_of(s) == 1:
            raise ValueError("once")
        return y

    with pytest.raises(ValueError, match="once"):
        world.run(broken, words(3), words(3))
    got = compute(lambda s, x: s.square(x), np.array([3.0]), world=world)
    assert abs(got[0] - 9.0) <= 2.0**-16


@pytest.mark.parametrize(
    "when",
    ["recording", "running"],
)
def test_weights_can_be_provisioned_after_a_failed_run(when: str) -> None:
    world = World()

    def broken(s: Any, x: Any) -> Any:
        s.open_weight(x)
        if when == "recording" or rank_of(s) == 1:
            raise ShapeError("once")

    with pytest.raises(ShapeError, match="once"):
        world.run(broken, np.zeros((2, 2), np.uint64), np.zeros((2, 2), np.uint64))
    x = np.array([[1.0, 2.0]])
    got = compute(lambda s, x, w: s.matmul(x, s.open_weight(w.data)), x, np.eye(2), world=world)
    np.testing.assert_array_equal(got, x)


def test_a_dealer_that_fails_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(deadline=5.0)

    def fail(*_: Any) -> None:
        raise ProtocolError("the dealer is out of cards")

    monkeypatch.setattr(world._dealer, "deal", fail)
    with pytest.raises(ProtocolError, match="out of cards"):
        world.run(lambda s, x: s.square(s.accept(x)), words(3), words(3))
    assert not party_threads()


def test_the_keyboard_ends_a_run() -> None:
    """Ctrl-C arrives in the caller's thread while both parties are at work."""
    started = threading.Event()

    def endless(s: Any, x: Any) -> Any:
        y = s.accept(x)
        step = 0
        while rank_of(s) is not None:
            s.party.open("x", [(x, 64)])
            step += 1
            if step == 300 and rank_of(s) == 0:
                started.set()
                _thread.interrupt_main()
        return y

    with pytest.raises(KeyboardInterrupt):
        World().run(endless, words(3), words(3))
    assert started.is_set()
    assert not party_threads()


def test_an_interrupt_while_the_roles_are_started_ends_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    start = _Run.start

    def interrupted(self: _Run, name: str, job: Callable[[], Any]) -> None:
        if name == "dealer":
            raise KeyboardInterrupt
        start(self, name, job)

    monkeypatch.setattr(_Run, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        World(deadline=2.0).run(lambda s, x: s.settle(s.square(s.accept(x))), words(3), words(3))
    for thread in (left := party_threads()):
        thread.join()  # until its deadline: no thread outlives its test
    assert not left


# ---- randomness serves once -----------------------------------------------------------------------------------------


def test_a_program_that_asks_for_more_than_its_plan_is_stopped() -> None:
    world = World(deadline=5.0)
    once = world.recorder.record(lambda s: s.square(s.accept(words(3))))

    def twice(s: Any, x: Any) -> Any:
        y = s.accept(x)
        return s.square(y), s.square(y)

    with pytest.raises(ReusedRandomness, match="used up"):
        world.run(twice, words(3), words(3), plan=once)


def test_a_plan_of_another_program_is_a_desync() -> None:
    world = World(deadline=5.0)
    other = world.recorder.record(lambda s: s.square(s.accept(words(4))))
    with pytest.raises(Desync, match="record the plan anew"):
        world.run(lambda s, x: s.square(s.accept(x)), words(3), words(3), plan=other)


def test_inputs_of_different_shapes_at_the_parties_are_a_desync() -> None:
    with pytest.raises(Desync):
        World(deadline=5.0).run(lambda s, x: s.square(s.accept(x)), words(3), words(4))


def test_a_party_outside_a_run_refuses() -> None:
    session = SecureSession(Party(0, FixedPoint(), kernels_named(KERNELS[-1])))
    with pytest.raises(ProtocolError, match="not in a run"):
        session.square(session.accept(words(2)))
    with pytest.raises(ProtocolError, match="not in a run"):
        session.reveal(session.accept(words(2)), 0)


def test_a_world_names_new_streams_for_every_run() -> None:
    """The same program, the same fixed seeds, the same inputs: the second run's masks are others."""
    logs: list[list[Any]] = []

    def connect(a: str, b: str) -> Any:
        first, second = local_pair(a, b)
        logs.append([])
        return Tap(first, logs[-1]), second

    world = World(unsafe_seeds=SEEDS, connect=connect)
    for _ in range(2):
        run(lambda s, x: s.square(x), Words(words(50), 16), world=world)
    assert not any(np.array_equal(a[1], b[1]) for a, b in zip(*logs, strict=True))


def test_a_source_given_the_same_serial_twice_makes_the_same_masks() -> None:
    """Why serials exist: this is what a world must never do."""
    world = World(unsafe_seeds=SEEDS)
    plan = world.recorder.record(lambda s: s.square(s.accept(words(3))))
    k = kernels_named(KERNELS[-1])
    a, b = (Source(SEEDS[0], 7, plan, None, k, Meter()).take(plan.kinds[0]).draw("mask0") for _ in range(2))
    np.testing.assert_array_equal(a, b)
