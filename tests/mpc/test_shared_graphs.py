"""Programs that share a graph, on a model of a GPU: those that differ in public arrays alone, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_lab import HostModules
from graph_lab import Given, graph_device
from mpc_lab import SEEDS, kernels_named

from secformer.mpc.backend import Later
from secformer.mpc.errors import NotRecordable
from secformer.mpc.fixed import decode, encode
from secformer.mpc.functions import Series
from secformer.mpc.programs import later
from secformer.mpc.recording import Brought
from secformer.mpc.script import Script
from secformer.mpc.session import CLIENT
from secformer.mpc.simulate import World

NEAR = 2.0**-9
WAVE = Series(4, (0.1, 0.5), (0.0, -0.3), domain=(-6.0, 6.0))


class Masked:
    """y = WAVE(x mask + addend)^2 at `taken` rows, times `factor`; guarded, for texts of the rows."""

    def __init__(self, mask: Any, *, addend: float = 0.5, factor: int = 3, taken: Any = (0, 2),
                 texts: Any = (0, 0, 1, 1)):
        self.mask, self.addend, self.factor = np.array(mask), addend, factor
        self.taken, self.texts = np.array(taken), np.array(texts)

    def __call__(self, s: Any, given: Given) -> dict[str, Any]:
        x = s.accept(given.words())
        with s.guarding({4: self.texts, 2: np.arange(2)}, 2) as guard:
            (y,) = s.series(x * self.mask + self.addend, [WAVE])
            y = s.square(y[self.taken] * self.factor)
        return {"y": s.reveal(y, CLIENT), "guard": guard.words}

    def exact(self, x: np.ndarray) -> np.ndarray:
        return np.asarray((self.factor * WAVE(x * self.mask + self.addend))[self.taken] ** 2)


class Device:
    """A world on a model of a GPU, and how many programs it recorded."""

    def __init__(self, modules: HostModules):
        self.xp, kernels, _ = graph_device(modules)
        self.world, self.rng = World(kernels=kernels), np.random.default_rng(1)

    def run(self, program: Masked, script: Script | None = None) -> Script:
        """Runs a program on a new input, and checks the answer."""
        x = self.rng.uniform(-3, 3, (4, 5))
        words = self.rng.integers(0, 2**64, x.shape, dtype=np.uint64)
        script = script or self.world.script(program, Given(words))
        outcome = self.world.run(program, Given(encode(x, 16) - words), Given(words), script=script)
        assert outcome.plan is script.plan
        mine, theirs = outcome.results
        found = {name: self.xp.asnumpy(a) + self.xp.asnumpy(theirs[name]) for name, a in mine.items()}
        np.testing.assert_allclose(decode(found["y"], 16), program.exact(x), rtol=0, atol=16 * NEAR)
        assert not found["guard"].any()
        return script

    @property
    def graphs(self) -> int:
        return len(self.xp.gpu.graphs)


FIRST = Masked([[1], [1], [1], [0]])


def test_programs_that_bring_other_arrays_share_a_graph(host_modules: HostModules) -> None:
    """Launch by launch, recorded, and repeated: each with a mask, rows and an addend of its own; and then again."""
    device, scripts = Device(host_modules), {}
    programs = [FIRST, Masked([[1], [0], [1], [0]], addend=0.25), Masked([[0], [1], [0], [1]], taken=(3, 3)),
                Masked([[1], [1], [0], [0]], taken=(1, 0), addend=1.5)]
    for program in [*programs, *programs[::-1], programs[1]]:
        scripts[program] = device.run(program, scripts.get(program))
    assert device.graphs == 1 and device.xp.gpu.graphs[0].launches == 8 and not device.world.notes
    assert not device.xp.gpu.graphs[0].races()
    assert len({script.name for script in scripts.values()}) == 1
    assert len({script.plan.digest for script in scripts.values()}) > 1


@pytest.mark.parametrize("where", ["launch by launch", "on a CPU"])
def test_the_words_are_those_of_a_run_by_itself(host_modules: HostModules, where: str) -> None:
    """Of a program that another one's graph ran: both parties have the words that they have without graphs, with the
    same keys, and the plan is the same."""
    xp, kernels, _ = graph_device(host_modules)
    shared = World(kernels=kernels, unsafe_seeds=SEEDS)
    own = (World(kernels=graph_device(host_modules)[1], unsafe_seeds=SEEDS, graph="off") if where == "launch by launch"
           else World(kernels=kernels_named("numpy"), unsafe_seeds=SEEDS))
    mine = np.random.default_rng(2).integers(0, 2**64, (4, 5), dtype=np.uint64)
    given = Given(encode(np.ones((4, 5)), 16) - mine), Given(mine)
    other = Masked([[1], [0], [1], [0]], addend=0.25, taken=(1, 1))
    for program in (FIRST, FIRST, other):
        found = shared.run(program, *given, script=shared.script(program, given[0]))
    assert [graph.launches for graph in xp.gpu.graphs] == [2]
    own._serial = shared._serial - 2  # the number of that run; the keys of the next one are prepared already
    alone = own.run(other, *given)
    assert found.plan.constants == alone.plan.constants and found.plan.bytes == alone.plan.bytes
    for shares, theirs in zip(found.results, alone.results, strict=True):
        for name, words in shares.items():
            np.testing.assert_array_equal(xp.asnumpy(words), own.kernels.backend.to_host(theirs[name]), name)


@pytest.mark.parametrize("other", [Masked(FIRST.mask, factor=5), Masked(FIRST.mask, texts=(0, 1, 1, 1)),
                                   Masked(FIRST.mask, taken=(0, 1, 2, 3))],
                         ids=["a number", "texts of the guard", "a shape"])
def test_programs_with_something_else_baked_in_have_graphs_of_their_own(
    host_modules: HostModules, other: Masked
) -> None:
    device = Device(host_modules)
    for program in (FIRST, FIRST, other, FIRST, other, other):
        device.run(program)
    assert device.graphs == 2 and not device.world.notes


def test_a_program_that_is_not_its_scripts_runs_launch_by_launch(host_modules: HostModules) -> None:
    """A recording does not begin with arrays that the script does not know."""
    device, wrong = Device(host_modules), Masked([[1], [0], [1], [0]])
    script = device.run(FIRST)
    device.run(wrong, script)
    (note,) = device.world.notes
    assert "brings another public array than its script says" in note
    assert not any(graph.launches for graph in device.xp.gpu.graphs)


def test_without_a_script_nothing_is_recorded(host_modules: HostModules) -> None:
    device = Device(host_modules)
    plan = device.world.recorder.record(FIRST, Given(np.zeros((4, 5))))
    for _ in range(3):
        device.run(FIRST, Script(plan))
    assert not device.graphs
    assert World(backend="numpy").script(FIRST, Given(np.zeros((4, 5)))).name == ""


# ---- what is brought -------------------------------------------------------------------------------------------------

ARRAYS = (np.arange(7, dtype=np.int64), np.ones((2, 3), np.uint8), np.array(5, np.uint64), np.zeros((0, 4), np.uint64))


def test_a_block_holds_arrays_of_all_types(host_modules: HostModules) -> None:
    xp, _, _ = graph_device(host_modules)
    brought, stream = Brought(xp, ARRAYS, (1, 0, 1, 2, 3)), xp.cuda.Stream(non_blocking=True)
    with stream:
        read = [brought.reader() for _ in range(2)]
        views = [[each(ARRAYS[place]) for place in (1, 0, 1, 2, 3)] for each in read]
        for arrays in (ARRAYS, tuple(a + np.ones((), a.dtype) for a in ARRAYS), ARRAYS):
            brought.hold(arrays, stream)
            for each in views:
                for view, place in zip(each, (1, 0, 1, 2, 3), strict=True):
                    found = xp.asnumpy(view)
                    assert found.dtype == arrays[place].dtype
                    np.testing.assert_array_equal(found, arrays[place])
        with pytest.raises(NotRecordable, match="another public array"):
            read[0](ARRAYS[0])  # one more than there are
        with pytest.raises(NotRecordable, match="takes public arrays"):
            brought.hold((*ARRAYS[:1], np.ones((3, 2), np.uint8), *ARRAYS[2:]), stream)
        for other in (ARRAYS[1] + np.uint8(1), ARRAYS[1].astype(np.int64), ARRAYS[1].T, ARRAYS[0]):
            with pytest.raises(NotRecordable, match="another public array"):
                brought.reader()(other)


def test_results_of_the_recorded_run_are_refused() -> None:
    y = Later(np.zeros(3), np.negative)
    assert later(({"y": y, "none": None}, [y, (y,)])) == 3
    for result in (np.zeros(3), {"y": 3.0}, [y, "yes"]):
        with pytest.raises(NotRecordable, match="of the recorded run"):
            later(result)
