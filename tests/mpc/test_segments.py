"""Served-like runs: a party or the dealer repeats its recorded segments on a GPU, the others do not notice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from cuda_lab import HostModules
from graph_lab import graph_device
from mpc_lab import SEEDS, Tap, kernels_named, split, tcp_pair

from secformer.mpc.dealer.ahead import read_ahead
from secformer.mpc.dealer.kinds import Lift
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.service import Dealer
from secformer.mpc.dealer.source import Source
from secformer.mpc.errors import PeerLost, ReusedRandomness
from secformer.mpc.fixed import FixedPoint, decode, encode
from secformer.mpc.functions import Series
from secformer.mpc.guarding import Guarded
from secformer.mpc.kernels import Kernels
from secformer.mpc.meter import Meter
from secformer.mpc.party import Party
from secformer.mpc.programs import KeyTable
from secformer.mpc.script import Script
from secformer.mpc.segmenting import BLOCK, Places
from secformer.mpc.segments import Launches, Runs, Segments, runs_on
from secformer.mpc.session import CLIENT
from secformer.mpc.sessions.recorder import PlanRecorder
from secformer.mpc.sessions.secure import SecureSession

FIXED = FixedPoint()
WAVE = Series(4, (0.1, 0.5, 0.25), (0.0, -0.3, 0.2), linear=0.5)
SHAPE = (3, 4)
CPU = kernels_named("numpy")
Sent = list[tuple[str, str, bytes]]  # who sent it, the tag, the payload


def weights(s: Any, mine: np.ndarray) -> Any:
    return s.open_weight(mine)


def program(s: Any, mine: Any, w: Any) -> Any:
    """A product with a weight, products of shares, a series, comparisons, all under a guard."""
    with s.guarding({3: np.arange(3)}, 3, Guarded()) as guard:
        y = s.accept(mine)
        (waved,) = s.series(y, [WAVE])
        (small,) = s.less(y, [1.0], bound=8.0)
        z = s.matmul(s.mul(y, waved) + s.relu(y, bound=8.0), w)
        s.settle(s.checked((z * 0.3).promise(4), -8.0, 8.0, "input"))
        out = s.lift(z, s.mul(small, y))
    return {"z": s.reveal(out[0], CLIENT), "small": s.reveal(out[1], CLIENT), "guard": guard.words}


ROLES = ["party 0", "party 1", "dealer"]


class Trio:
    """Party 0, party 1 and the dealer, each with kernels of its own, over TCP. The parties' connection stays."""

    def __init__(self, kernels: tuple[Kernels, Kernels, Kernels], graph: str = "auto", deadline: float = 20.0):
        self.kernels, self.deadline = kernels, deadline
        self.told: list[str] = []
        self.runs: list[Runs] = [runs_on(k, graph, self.told.append, ahead)
                                 for k, ahead in zip(kernels, (0, 0, 1 << 12), strict=True)]
        self.lanes = [k.backend.lane() for k in kernels]
        self.sessions = [SecureSession(Party(rank, FIXED, kernels[rank])) for rank in (0, 1)]
        self.dealer = Dealer(SEEDS, kernels[2])
        self.log: Sent = []
        self.peers = self.tapped()
        recorder = PlanRecorder(FIXED)
        rng = np.random.default_rng(7)
        self.w = rng.uniform(-1, 1, (4, 2))
        halves = split(encode(self.w, FIXED.frac), rng)
        ghost = {}
        opening = recorder.record(lambda s: ghost.update(w=weights(s, halves[0])))
        self.script = recorder.script(lambda s: program(s, np.zeros(SHAPE, dtype=np.uint64), ghost["w"]))
        self.plan = self.script.plan
        self.opened: dict[int, Any] = {}

        def load(rank: int) -> Callable[[], Any]:
            def job() -> None:
                session = self.sessions[rank]
                session.party.begin(self.peers[rank], Source(SEEDS[rank], "weights", opening, None, kernels[rank],
                                                             Meter()), Meter())
                self.opened[rank] = weights(session, halves[rank])
            return job

        self.together({"party 0": load(0), "party 1": load(1),
                       "dealer": lambda: self.dealer.deal(opening, "weights", self.peers[0])})

    def tapped(self) -> list[Any]:
        ends = tcp_pair("party 0", "party 1", deadline=self.deadline)
        return [Named(end, f"party {rank}", self.log) for rank, end in enumerate(ends)]

    def together(self, jobs: dict[str, Callable[[], Any]]) -> list[Any]:
        results: dict[str, Any] = {}

        def body(name: str, job: Callable[[], Any]) -> None:
            try:
                with self.lanes[ROLES.index(name)], np.errstate(over="ignore"):
                    results[name] = job()
            except BaseException as error:
                results[name] = error

        threads = [threading.Thread(target=body, args=item, daemon=True) for item in jobs.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive(), "a role hangs"
        return [results[name] for name in jobs]

    def ask(self, run: str, x: np.ndarray, seed: int = 5, *, raw: bool = False) -> Any:
        """What each role's run gave: (results of party 0, of party 1, of the dealer), or its error."""
        halves = split(encode(x, FIXED.frac), np.random.default_rng(seed))
        dealer_end, feed = tcp_pair("dealer", "party 1", deadline=self.deadline)
        self.log.clear()

        def party(rank: int) -> Callable[[], Any]:
            def play(channels: Any, given: Any) -> Any:
                meter, session = Meter(), self.sessions[rank]
                source = Source(SEEDS[rank], run, self.plan, channels.get("dealer"), self.kernels[rank], meter)
                session.party.begin(channels["peer"], source, meter)
                return program(session, given, self.opened[rank]), meter.cost

            channels = {"peer": self.peers[rank]}
            if rank:
                channels["dealer"] = read_ahead(feed, self.plan)
            return lambda: self.runs[rank].run(self.script.name, self.script, (SEEDS[rank],), run, channels,
                                               halves[rank], play)

        def deal() -> Any:
            channels: Any = {"party1": Named(dealer_end, "dealer", self.log)}
            return self.runs[2].run(self.plan.dealt, Script(self.plan, self.plan.dealt), SEEDS, run, channels, None,
                                    lambda channels, _: (None, self.dealer.deal(self.plan, run, channels["party1"])))

        return self.together({"party 0": party(0), "party 1": party(1), "dealer": deal})

    def answer(self, run: str, x: np.ndarray, seed: int = 5) -> tuple[dict[str, np.ndarray], list[bool], Sent]:
        """The decoded results, which roles repeated a recording, and what was sent."""
        ran = self.ask(run, x, seed)
        for each in ran:
            if isinstance(each, BaseException):
                raise each
        mine, cost0, theirs, cost1 = ran[0].results, ran[0].facts, ran[1].results, ran[1].facts
        assert cost0.bytes == cost1.bytes and cost0.rounds == cost1.rounds
        words = {name: mine[name] + theirs[name] for name in mine}
        guard = words.pop("guard")
        assert not guard.any(), "a value left its range"
        return {name: decode(w, FIXED.frac) for name, w in words.items()}, [r.repeated for r in ran], sorted(self.log)


class Named(Tap):
    """A channel that notes who sent what; what it receives goes where its owner wants it."""

    def __init__(self, inner: Any, who: str, log: Any):
        super().__init__(inner, [])
        self.who, self.all = who, log

    def send(self, tag: Any, payload: Any) -> None:
        host = payload if isinstance(payload, np.ndarray) else payload.get()
        self.all.append((self.who, repr(tag), host.tobytes()))
        self.inner.send(tag, host)

    def receive(self, tag: Any, nbytes: int) -> Any:
        self.inner.buffer = self.buffer
        return super().receive(tag, nbytes)


@pytest.fixture
def gpu(host_modules: HostModules) -> Any:
    xp, kernels, _ = graph_device(host_modules, seed=4)
    xp.gpu.segmented = True
    return xp, kernels


def poison(xp: Any) -> None:
    """Everything that is free is overwritten between runs."""
    for pool in list(xp.gpu.pools):
        pool.poison()


def inputs(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    return [rng.uniform(-2, 2, SHAPE) for _ in range(count)]


def shapes(sent: Sent) -> list[tuple[str, str, int]]:
    return [(who, tag, len(payload)) for who, tag, payload in sent]


@pytest.mark.parametrize("where", ROLES)
def test_a_role_repeats_its_segments_and_the_others_see_the_same_words(gpu: Any, where: str) -> None:
    xp, kernels = gpu
    role = ROLES.index(where)
    mixed = [CPU, CPU, CPU]
    mixed[role] = kernels
    trio, plain = Trio(tuple(mixed)), Trio((CPU, CPU, CPU))  # type: ignore[arg-type]
    for n, x in enumerate(inputs(4)):
        poison(xp)
        got, repeated, sent = trio.answer(f"live/{n}", x, seed=n)
        wanted, _, plainly = plain.answer(f"live/{n}", x, seed=n)
        assert repeated == [r == role and n > 0 for r in range(3)]
        assert sent == plainly, "the words on the wire are those of a run on a CPU, to the bit"
        for name in wanted:
            np.testing.assert_array_equal(got[name], wanted[name])
    assert trio.told == [] and all(graph.launches == 3 for graph in xp.gpu.graphs) and len(xp.gpu.graphs) > 5


def test_two_runs_of_one_input_send_different_words(gpu: Any) -> None:
    """Of every message that is masked at all; and what the parties send is as uniform as fresh masks are."""
    _, kernels = gpu
    trio, (x,) = Trio((kernels, CPU, kernels)), inputs(1)
    sent = []
    for n in range(4):
        _, repeated, log = trio.answer(f"live/{n}", x)
        sent.append(log)
    assert repeated == [True, False, True]
    first, second = ([payload for who, _, payload in log if who == "party 0"] for log in sent[2:])
    assert len(first) == len(second) > 5
    for one, other in zip(first, second, strict=True):
        assert one != other or len(one) < 8, "a message came twice"
    low = np.frombuffer(b"".join(first) + b"".join(second), dtype=np.uint8) & 1  # higher bits of a last byte may be 0
    assert low.size > 1000 and abs(low.mean() - 0.5) < 5 * 0.5 / np.sqrt(low.size)


def test_a_name_serves_once(gpu: Any) -> None:
    _, kernels = gpu
    trio, (x,) = Trio((kernels, CPU, CPU), deadline=2.0), inputs(1)
    for n in range(3):
        trio.answer(f"live/{n}", x)
    ran = trio.ask("live/1", x)
    assert isinstance(ran[0], ReusedRandomness) and "live/1" in str(ran[0])
    assert not any(who == "party 0" for who, _, _ in trio.log)


def test_keys_of_an_earlier_run_end_everything(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a table that comes again gets through: the first segment claims it."""
    xp, kernels = gpu
    trio, (x,) = Trio((kernels, CPU, CPU), deadline=2.0), inputs(1)
    tables = []
    words = KeyTable.words
    monkeypatch.setattr(KeyTable, "words", lambda *args: tables.append(words(*args)) or tables[0])
    for n in range(2):
        trio.answer(f"live/{n}", x)
    ran = trio.ask("live/2", x)
    assert "trapped" in xp.gpu.dead and "trapped" in str(ran[0])
    assert not any(who == "party 0" for who, _, _ in trio.log), "nothing was sent under these keys"


def test_a_run_wipes_its_keys(gpu: Any) -> None:
    _, kernels = gpu
    trio, (x,) = Trio((kernels, CPU, CPU)), inputs(1)
    for n in range(2):
        trio.answer(f"live/{n}", x)
    (program,) = trio.runs[0]._programs.values()  # type: ignore[attr-defined]
    assert not program.recorded._table.get().any()


def test_a_peer_that_leaves_in_the_middle_of_a_repetition(gpu: Any) -> None:
    """The error is that of a run on a CPU; the keys are wiped; with a new connection the recording goes on."""
    _, kernels = gpu
    trio, xs = Trio((kernels, CPU, CPU), deadline=2.0), inputs(4)
    for n in range(2):
        trio.answer(f"live/{n}", xs[n])
    left, receive = [5], trio.peers[1].inner.receive

    def leaving(*args: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise PeerLost("party 1 is killed")
        return receive(*args)

    trio.peers[1].inner.receive = leaving
    ran = trio.ask("live/2", xs[2])
    assert isinstance(ran[0], PeerLost) and "party 1" in str(ran[0])
    (program,) = trio.runs[0]._programs.values()  # type: ignore[attr-defined]
    assert not program.recorded._table.get().any()
    trio.peers = trio.tapped()
    got, repeated, _ = trio.answer("live/3", xs[3])
    wanted, _, _ = Trio((CPU, CPU, CPU)).answer("live/3", xs[3])
    assert repeated == [True, False, False]
    np.testing.assert_array_equal(got["z"], wanted["z"])


@pytest.mark.parametrize("why", ["constant", "memory", "driver"])
def test_what_cannot_be_recorded_runs_launch_by_launch(gpu: Any, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    xp, kernels = gpu
    trio, xs = Trio((kernels, CPU, CPU)), inputs(4)
    trio.answer("live/0", xs[0])
    if why == "constant":
        kernels.backend._constants._known.clear()
    elif why == "memory":
        def full(size: int) -> Any:
            raise xp.cuda.OutOfMemoryError("Out of memory")

        monkeypatch.setattr(trio.runs[0]._pool, "malloc", full)  # type: ignore[attr-defined]
    else:
        end = xp.cuda.Stream(non_blocking=True).__class__.end_capture
        monkeypatch.setattr("graph_lab.Stream.end_capture", lambda self: (end(self), 1 // 0))
    for n in (1, 2, 3):
        got, repeated, _ = trio.answer(f"live/{n}", xs[n])
        assert not any(repeated)
    wanted, _, _ = Trio((CPU, CPU, CPU)).answer("live/3", xs[3])
    np.testing.assert_array_equal(got["z"], wanted["z"])
    told = {"constant": "NotRecordable", "memory": "GB of GPU memory", "driver": "ZeroDivisionError"}[why]
    assert len(trio.told) == 1 and told in trio.told[0] and "launch by launch" in trio.told[0]


def test_off_and_cpus_record_nothing(gpu: Any) -> None:
    xp, kernels = gpu
    trio, (x,) = Trio((kernels, CPU, CPU), graph="off"), inputs(1)
    for n in range(3):
        assert trio.answer(f"live/{n}", x)[1] == [False] * 3
    assert not xp.gpu.graphs and isinstance(runs_on(CPU, "auto", print), Launches)
    assert isinstance(runs_on(kernels, "auto", print), Segments)


def test_forgotten_recordings_are_made_anew(gpu: Any) -> None:
    """As when weights are opened again: the first run after that goes launch by launch."""
    _, kernels = gpu
    trio, xs = Trio((kernels, CPU, CPU)), inputs(5)
    repeated = []
    for n, x in enumerate(xs):
        if n == 1:
            trio.runs[0].forget(lambda name: name != trio.script.name)  # others
        if n == 2:
            trio.runs[0].forget()
        repeated.append(trio.answer(f"live/{n}", x)[1][0])
    assert repeated == [False, True, False, True, True]


def test_corrections_are_read_into_the_party_s_memory() -> None:
    """Through the channel that reads ahead: on a GPU, memory that it copies from directly."""
    plan, made = Plan((Lift(4, 16, 48),)), list[int]()

    def buffer(nbytes: int) -> np.ndarray:
        made.append(nbytes)
        return np.zeros(nbytes, dtype=np.uint8)

    near, far = tcp_pair("dealer", "party 1")
    channel = read_ahead(far, plan)
    channel.buffer = buffer
    for tag, nbytes in plan.corrections():
        near.send(tag, np.ones(nbytes, dtype=np.uint8))
        assert channel.receive(tag, nbytes).all()
    assert made == [nbytes for _, nbytes in plan.corrections()]
    channel.close()


def test_places_stay_where_they_are() -> None:
    """Segment after segment uses the same places; what does not fit gets a block that stays, too."""
    places, found = Places(np), []
    for sizes in ([10, 0, 300], [10, BLOCK, 20], [10, 0, 300], [BLOCK - 1, 10]):
        places.restart()
        given = [places.place(size) for size in sizes]
        assert [p.size for p in given] == sizes and places.used >= sum(sizes)
        spans = sorted((p.ctypes.data, p.ctypes.data + p.size) for p in given if p.size)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans)), "places overlap"
        found.append([p.ctypes.data for p in given if p.size])
    assert found[0] == found[2] and found[0][0] == found[1][0] == found[3][0]
    assert len(places._blocks) == 3  # the second is full, so 20 bytes of the second segment are in a third


def test_long_corrections_cut_a_segment(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Party 1 receives no more at once than a bound allows; it computes the same."""
    _, kernels = gpu
    monkeypatch.setattr("secformer.mpc.segmenting.SEGMENT", 256)
    trio, xs = Trio((CPU, kernels, CPU)), inputs(3)
    for n, x in enumerate(xs):
        got, _, _ = trio.answer(f"live/{n}", x)
    wanted, _, _ = Trio((CPU, CPU, CPU)).answer("live/2", xs[2])
    np.testing.assert_array_equal(got["z"], wanted["z"])
    (program,) = trio.runs[1]._programs.values()  # type: ignore[attr-defined]
    cut = [s for s in program.recorded._segments[:-1] if s.sent is None]
    assert cut and all(sum(m.place.size for m in s.received) <= 256 or len(s.received) == 1 for s in cut)
