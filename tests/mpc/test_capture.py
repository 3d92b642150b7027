"""Which runs become graphs, and what happens where one cannot: on a model of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from cuda_lab import HostModules
from graph_lab import Given, graph_device
from mpc_lab import alone

from secformer.mpc import capture
from secformer.mpc.dealer.kinds import Coin, Lift
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import Desync, SettingsError
from secformer.mpc.fixed import decode, encode
from secformer.mpc.prg import derive
from secformer.mpc.programs import KeyTable
from secformer.mpc.script import Script
from secformer.mpc.session import CLIENT
from secformer.mpc.sessions.recorder import ghost
from secformer.mpc.simulate import World

X = np.array([[1.5, -2.0], [0.25, 3.0]])
Program = Callable[[Any, Given], Any]


def square(s: Any, given: Given) -> Any:
    y = s.accept(given.words())
    return s.reveal(s.mul(y, y), CLIENT)


def fourfold(s: Any, given: Given) -> Any:
    y = s.accept(given.words())
    return s.reveal(s.mul(y, y) * 4, CLIENT)


def answer(world: World, program: Program = square, x: np.ndarray = X, script: Script | None = None) -> np.ndarray:
    mask = np.random.default_rng(1).integers(0, 2**64, x.shape, dtype=np.uint64)
    script = script or world.script(program, Given(ghost(x.shape)))
    mine, theirs = world.run(program, Given(encode(x, 16) - mask), Given(mask), script=script).results
    return decode(mine + theirs, 16)


def world_on(modules: HostModules, memory: int | None = None, **options: Any) -> tuple[Any, World]:
    xp, kernels, _ = graph_device(modules, memory=memory)
    return xp, World(kernels=kernels, **options)


def test_the_second_run_is_recorded(host_modules: HostModules) -> None:
    xp, world = world_on(host_modules)
    for run, launches in enumerate((0, 1, 2)):
        x = X + run
        np.testing.assert_allclose(answer(world, x=x), x * x, atol=2**-9)
        assert sum(graph.launches for graph in xp.gpu.graphs) == launches
    assert len(xp.gpu.graphs) == 1 and not world.notes


def test_programs_take_turns(host_modules: HostModules) -> None:
    """Each has a graph of its own, and keys of its own, however the runs of both follow each other."""
    xp, world = world_on(host_modules)
    for program, factor in ((square, 1), (fourfold, 4)) * 3:
        np.testing.assert_allclose(answer(world, program), factor * X * X, atol=2**-7)
    assert [graph.launches for graph in xp.gpu.graphs] == [2, 2]


@pytest.mark.parametrize("mode", ["off", "auto"])
def test_nothing_is_recorded_unless_asked(host_modules: HostModules, mode: str) -> None:
    xp, world = world_on(host_modules, graph=mode)
    given = Given(encode(X, 16)), Given(np.zeros(X.shape, dtype=np.uint64))
    for _ in range(3):
        if mode == "off":
            answer(world)
        else:
            world.run(square, *given)
    assert not xp.gpu.graphs


def test_a_check_of_rows_is_recorded_and_refuses_rows_in_a_later_run(host_modules: HostModules) -> None:
    def checked(s: Any, given: Given) -> Any:
        return alone(s, s.unit_rows(s.accept(given.words(), frac=0, operand=True), ((0, 3),)))

    xp, world = world_on(host_modules)
    script = world.script(checked, Given(ghost((2, 3))))
    mask = np.random.default_rng(1).integers(0, 2**64, (2, 3), dtype=np.uint64)
    for run, rows in enumerate(([[0, 1, 0], [1, 0, 0]], [[0, 0, 1]] * 2, [[0, 1, 0], [1, 1, 0]], [[1, 0, 0]] * 2)):
        words = np.array(rows, dtype=np.uint64)
        found = world.run(checked, Given(words - mask), Given(mask), script=script).results
        assert [bool(each.any()) for each in found] == [run == 2] * 2
    assert sum(graph.launches for graph in xp.gpu.graphs) == 3 and not world.notes


def test_an_unknown_mode() -> None:
    with pytest.raises(SettingsError, match="graph must be one of auto, off; got 'on'"):
        World(backend="numpy", graph="on")


def test_graphs_that_were_not_used_for_long_are_forgotten(
    host_modules: HostModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "KEPT", 2)
    xp, world = world_on(host_modules)
    for rows in (1, 1, 2, 2, 1, 3, 2):  # 3 takes the place of 2
        answer(world, x=np.ones((rows, 2)))
    assert len(xp.gpu.graphs) == 2
    assert len(world._graphs._programs) == 2  # type: ignore[union-attr]


def test_graphs_do_not_outlive_the_weights_that_they_read(host_modules: HostModules) -> None:
    """Weights that are forgotten and opened anew have the same numbers, and the programs the same scripts."""
    xp, world = world_on(host_modules)
    held: dict[Any, Any] = {}

    def opening(s: Any, words: np.ndarray) -> None:
        held[s] = s.open_weight(words)

    def product(s: Any, given: Given) -> Any:
        return s.reveal(s.matmul(s.accept(given.words()), held[s]), CLIENT)

    for factor in (1.0, -2.0):
        words = encode(factor * np.eye(2), 16)
        world.run(opening, words, np.zeros_like(words))
        for _ in range(3):
            np.testing.assert_allclose(answer(world, product), factor * X, atol=2**-9)
        for s in (*world.parties, world.recorder):
            s.forget_weights()
    assert [graph.launches for graph in xp.gpu.graphs] == [2, 2]


# ---- where it cannot be ----------------------------------------------------------------------------------------------


def test_a_program_that_cannot_be_recorded_runs_launch_by_launch(host_modules: HostModules) -> None:
    """It looks at a value, which would bring the recorded run's value into every later one."""

    def curious(s: Any, given: Given) -> Any:
        y = s.accept(given.words())
        if s in world.parties:
            s.party.kernels.backend.to_host(y.data)
        return s.reveal(s.mul(y, y), CLIENT)

    xp, world = world_on(host_modules)
    for _ in range(4):
        np.testing.assert_allclose(answer(world, curious), X * X, atol=2**-9)
    (note,) = world.notes
    assert "was not recorded as a CUDA graph" in note and "launch by launch" in note
    assert not any(graph.launches for graph in xp.gpu.graphs)
    np.testing.assert_allclose(answer(world, fourfold) / 4, X * X, atol=2**-9)


def test_a_public_number_that_changes_is_not_baked_in(host_modules: HostModules) -> None:
    """Programs under one name must be the same; what is brought from the host anew is noticed."""
    runs = iter(range(100))

    def changing(s: Any, given: Given) -> Any:
        y = s.accept(given.words())
        return s.reveal(y * np.array([1.0, 2.0 + next(runs)]), CLIENT)

    _, world = world_on(host_modules)
    script = world.script(changing, Given(ghost(X.shape)))
    for _ in range(3):
        answer(world, changing, script=script)
    assert "NotRecordable" in world.notes[0]


def test_too_little_memory(host_modules: HostModules) -> None:
    large = np.ones((64, 1024))
    xp, world = world_on(host_modules, memory=10 << 20)
    for _ in range(3):
        np.testing.assert_allclose(answer(world, x=large), large, atol=2**-9)
    (note,) = world.notes
    assert "GB of GPU memory" in note and "batch_tokens" in note
    assert not any(graph.launches for graph in xp.gpu.graphs)


def test_ctrl_c_while_recording(host_modules: HostModules) -> None:
    interrupted = []

    def program(s: Any, given: Given) -> Any:
        if s is world.parties[1] and s.party.kernels.backend.recording is not None and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return square(s, given)

    _, world = world_on(host_modules)
    answer(world, program)
    with pytest.raises(KeyboardInterrupt):
        answer(world, program)
    for _ in range(2):
        np.testing.assert_allclose(answer(world, program), X * X, atol=2**-9)
    assert not world.notes


def test_an_input_of_another_shape(host_modules: HostModules) -> None:
    _, world = world_on(host_modules)
    script = world.script(square, Given(ghost(X.shape)))
    for _ in range(2):
        answer(world, script=script)
    with pytest.raises(Desync):  # as without a graph
        answer(world, x=X[:1], script=script)
    (note,) = world.notes
    assert "a graph takes (2, 2) uint64, got (1, 2) uint64" in note
    np.testing.assert_allclose(answer(world, script=script), X * X, atol=2**-9)


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_a_table_has_the_keys_of_all_streams() -> None:
    seeds = bytes(32), bytes([1] * 32)
    plan = Plan((Coin(4), Lift(3, 20, 40)))
    table, rows = KeyTable(2, plan).words(seeds, 7), KeyTable(2, plan).rows(seeds, 7)
    names = [(0, "mask"), (1, "mask"), (1, "wraps")]
    assert table.shape == (1 + 2 * len(names), 4) and table.dtype == np.uint64
    assert table[0].tolist() == [8, 0, 0, 0]
    for seed in seeds:
        for index, name in names:
            key = derive(seed, "run", 7, index, name)
            assert table[rows[key]].tobytes() == key
    assert not set(rows) & set(KeyTable(2, plan).rows(seeds, 8))


def test_recording_where_memory_is_short_breaks_no_other_graph(host_modules: HostModules) -> None:
    """CuPy's pool would give up its free memory to make room, which the first graph still uses."""
    x = np.linspace(-2, 2, 64 * 64).reshape(64, 64)
    xp, world = world_on(host_modules, memory=4 << 20)
    for program in (square, square, fourfold):
        answer(world, program, x)
    xp.get_default_memory_pool().free_all_blocks()
    others = xp.empty(xp.cuda.runtime.memGetInfo()[0] - 3 * 8 * x.size, dtype=np.uint8)  # room for inputs and keys
    with suppress(MemoryError):  # perhaps too little to go launch by launch, too
        answer(world, fourfold, x)
    del others
    for program, factor in ((square, 1), (square, 1), (fourfold, 4)):
        np.testing.assert_allclose(answer(world, program, x), factor * x * x, atol=2**-7)
    assert "GB of GPU memory" in world.notes[0]
