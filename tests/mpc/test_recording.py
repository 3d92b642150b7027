"""Runs that are recorded, on a model of a GPU: repeated runs are right, and each rule of a recording is needed."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cuda_lab import HostModules
from graph_lab import Given, graph_device

from secformer.mpc import recording
from secformer.mpc.backend import CupyBackend
from secformer.mpc.capture import Graph
from secformer.mpc.constants import Constants
from secformer.mpc.fixed import decode, encode
from secformer.mpc.functions import Series
from secformer.mpc.kernels.cuda.keys import Keys
from secformer.mpc.recording import Recording
from secformer.mpc.session import CLIENT
from secformer.mpc.sessions.recorder import ghost
from secformer.mpc.simulate import World

WAVE = Series(4, (0.1, 0.5), (0.0, -0.3))
RUNS, NEAR = 7, 2.0**-9


def program(s: Any, given: Given) -> Any:
    y = s.accept(given.words())
    (waved,) = s.series(y, [WAVE])
    a, b, c, d, e = (s.mul(y, y) for _ in range(5))  # so many messages of one size that their memory is used again
    square = a + b - c + d - e
    return [s.reveal(z, CLIENT) for z in (s.relu(y * 0.5, bound=8.0) + square, waved)]


def exact(x: np.ndarray) -> list[np.ndarray]:
    return [np.maximum(0.5 * x, 0) + x * x, WAVE(x)]


class Trial:
    """A world on a model of a GPU that runs one program on several inputs. The first run goes launch by launch,
    the second is recorded, later ones are repeated."""

    def __init__(self, modules: HostModules, seed: int = 0):
        self.xp, kernels, _ = graph_device(modules, seed)
        kernels.claim_keys(self.xp.arange(1, 5, dtype=np.uint64), self.xp.zeros(1, dtype=np.uint64))  # its first use
        self.world, self.rng = World(kernels=kernels), np.random.default_rng(seed)
        self.script = self.world.script(program, Given(ghost((4, 5))))
        self.wrong = [self.run() for _ in range(RUNS)]
        (self.graph,) = self.xp.gpu.graphs

    def run(self) -> bool:
        """Whether the answer to a new input is wrong."""
        x = self.rng.uniform(-3, 3, (4, 5))
        mask = self.rng.integers(0, 2**64, x.shape, dtype=np.uint64)
        outcome = self.world.run(program, Given(encode(x, 16) - mask), Given(mask), script=self.script)
        found = [decode(self.xp.asnumpy(a) + self.xp.asnumpy(b), 16) for a, b in zip(*outcome.results, strict=True)]
        return any(np.abs(f - e).max() > NEAR for f, e in zip(found, exact(x), strict=True))


@pytest.mark.parametrize("held", [0, recording.HELD])
def test_repeated_runs_answer_their_own_input(
    host_modules: HostModules, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(recording, "HELD", held)
    for seed in range(3):
        trial = Trial(host_modules, seed)
        assert not any(trial.wrong)
        assert trial.world.notes == [] and trial.graph.races() == [] and trial.graph.launches == RUNS - 1


# ---- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_value", [False, True])
def test_no_two_runs_send_the_same_words(
    host_modules: HostModules, monkeypatch: pytest.MonkeyPatch, by_value: bool
) -> None:
    """Of one input: what is sealed to be opened, and what is dealt, is new in every run, and its bits are balanced.
    With keys as launch arguments, each run would repeat the words of the one before."""
    if by_value:
        monkeypatch.setattr(Keys, "recorded", lambda self, table, rows: nullcontext())
    trial, given = Trial(host_modules), Given(encode(np.ones((4, 5)), 16))
    sent: list[bytes] = []
    trial.graph.watch = lambda name, made: sent.append(made[-1]) if name in ("seal", "corrections") else None
    for _ in range(20):
        trial.world.run(program, given, Given(given.array), script=trial.script)
    assert len(sent) == 20 * (trial.graph.operations["seal"] + trial.graph.operations["corrections"]) > 100
    long = [message for message in sent if len(message) >= 8]
    assert len(long) > 100
    if by_value:
        assert len(set(long)) == len(long) / 20
        return
    assert len(set(long)) == len(long)
    bits = np.frombuffer(b"".join(long), dtype=np.uint8) & 1  # the last byte of a word may be below 2
    assert bits.size > 10_000 and abs(bits.mean() - 0.5) < 3 / bits.size**0.5  # 6 sigma


def test_a_graph_without_fresh_keys_ends_everything(host_modules: HostModules) -> None:
    """A launch by itself finds the table wiped; one with the keys of a run that was finds the run's number too low."""
    for again in (False, True):
        trial = Trial(host_modules)
        graph = next(p.recorded for p in trial.world._graphs._programs.values())  # type: ignore[union-attr]
        assert graph is not None
        last = trial.world._serial - 2  # the next one's are made already
        stale = graph._keys.words(trial.world._seeds, last)
        if again:
            graph._table.set(stale, stream=graph._stream)
        trial.graph.launch(graph._stream)
        with pytest.raises(RuntimeError, match="claim_keys: the kernel trapped"):
            graph._stream.synchronize()


# ---- each rule, left out ---------------------------------------------------------------------------------------------


def unmarked(patch: pytest.MonkeyPatch) -> None:
    """A message is read as soon as the run has begun."""
    outgoing = CupyBackend.outgoing
    patch.setattr(CupyBackend, "outgoing", lambda self, payload: replace(
        outgoing(self, payload), **({"made": self.recording._start} if self.recording else {})))


def unread(patch: pytest.MonkeyPatch) -> None:
    """A sender goes on as if its messages had been read."""
    patch.setattr(Recording, "sends", lambda self, stream: self._read.pop(stream.ptr, None))


def unheld(patch: pytest.MonkeyPatch) -> None:
    """A message's memory is its sender's again at once."""
    patch.setattr(Recording, "read", lambda *args: None)


def unjoined(patch: pytest.MonkeyPatch) -> None:
    """The keys are wiped before the roles have ended."""
    patch.setattr(Recording, "join", lambda self: None)


@pytest.mark.parametrize("rule", [unmarked, unread, unheld, unjoined])
def test_without_a_rule_streams_race(host_modules: HostModules, monkeypatch: pytest.MonkeyPatch, rule: Any) -> None:
    monkeypatch.setattr(recording, "HELD", 0)
    rule(monkeypatch)
    trial = Trial(host_modules)
    assert trial.graph.races() and any(trial.wrong)


def test_what_a_graph_reads_is_kept(host_modules: HostModules, monkeypatch: pytest.MonkeyPatch) -> None:
    """Constants may be forgotten by the backend: only the recording keeps those that its graph reads."""
    made = Graph.__init__

    def forgetful(self: Any, *args: Any) -> None:
        made(self, *args)
        for constants in known:
            constants._known.clear()

    known: list[Constants] = []
    begun = Constants.__init__
    monkeypatch.setattr(Constants, "__init__", lambda self, xp: (begun(self, xp), known.append(self))[0])
    monkeypatch.setattr(Graph, "__init__", forgetful)
    assert not any(Trial(host_modules).wrong)
    keep = Recording.keep
    monkeypatch.setattr(Recording, "keep", lambda self, thing: keep(self, thing) if thing.size == 1 else None)
    assert all(Trial(host_modules).wrong[1:])


@pytest.mark.parametrize("common", [True, False])
def test_a_graph_has_memory_of_its_own(
    host_modules: HostModules, monkeypatch: pytest.MonkeyPatch, common: bool
) -> None:
    """What others allocate in a role's stream stays theirs."""
    begun = Recording.__init__
    if common:
        monkeypatch.setattr(Recording, "__init__", lambda self, xp, pool, *more: begun(self, xp, xp.gpu.common, *more))
    trial = Trial(host_modules)
    theirs = []
    for lane in trial.world._lanes.values():
        with lane:
            theirs += [trial.xp.zeros(20, dtype=np.uint64) for _ in range(20)]
    assert not trial.run()
    assert any(other.get().any() for other in theirs) is common
