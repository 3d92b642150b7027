"""Right operands that stand: kept in the form that is read, and as words wherever those are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_lab import HostModules
from graph_lab import Given, graph_device
from mpc_lab import kernels_named

from secformer.mpc.errors import NotRecordable
from secformer.mpc.fixed import decode, encode
from secformer.mpc.kernels.cuda.ways import BYTES, INTEGER
from secformer.mpc.kernels.standing import Standing
from secformer.mpc.recording import Brought, Recorder
from secformer.mpc.session import CLIENT
from secformer.mpc.sessions.recorder import ghost
from secformer.mpc.simulate import World

PAIR = np.arange(600, dtype=np.uint64).reshape(20, 30), np.arange(600, dtype=np.uint64).reshape(20, 30) << np.uint64(50)


def standing(modules: HostModules) -> tuple[Any, Any, Standing]:
    xp, _, backend = graph_device(modules)
    return xp, backend, Standing(backend, (xp.asarray(PAIR[0]), xp.asarray(PAIR[1])))


def same(found: Any) -> None:
    for mine, word in zip(found, PAIR, strict=True):
        assert not isinstance(mine, np.ndarray), "kernels read what is on the device"
        np.testing.assert_array_equal(mine.get(), word)


def test_words_that_nothing_reads_leave_the_device(host_modules: HostModules) -> None:
    xp, _, s = standing(host_modules)
    before = xp.gpu.common.used_bytes()
    assert [s.made("bytes", lambda words: words[0].nbytes) for _ in range(2)] == [PAIR[0].nbytes] * 2
    assert xp.gpu.common.used_bytes() <= before - sum(word.nbytes for word in PAIR)
    xp.gpu.common.poison()
    same(s.words())
    assert xp.gpu.common.used_bytes() == before
    assert s.made("wider", lambda words: len(words)) == 2, "what was asked for twice"
    assert xp.gpu.common.used_bytes() == before, "stays"


def test_words_that_were_read_before_stay(host_modules: HostModules) -> None:
    """A graph may read them where they are."""
    xp, _, s = standing(host_modules)
    first, before = s.words()[0].raw.ctypes.data, xp.gpu.common.used_bytes()
    assert s.made("bytes", len) == 2
    assert xp.gpu.common.used_bytes() == before and s.words()[0].raw.ctypes.data == first


def test_while_a_run_is_recorded(host_modules: HostModules) -> None:
    """Nothing is kept that is not there yet, and nothing is copied from the host."""
    xp, backend, s = standing(host_modules)
    before = xp.gpu.common.used_bytes()
    with backend.recorded_alone(Recorder(Brought(xp, [], []))):
        assert [s.made("bytes", lambda words, n=n: n) for n in (1, 2)] == [1, 2]
    assert xp.gpu.common.used_bytes() == before
    _, backend, s = standing(host_modules)
    s.made("bytes", len)
    with backend.recorded_alone(Recorder(Brought(xp, [], []))):
        assert s.made("bytes", id) == 2
        with pytest.raises(NotRecordable, match="words of a weight"):
            s.words()
    same(s.words())


def test_on_a_cpu_there_is_nowhere_to_go() -> None:
    s = Standing(kernels_named("numpy").backend, PAIR)
    assert s.made("bytes", len) == 2 and s.words() is s.words() and s.words()[0] is PAIR[0]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_weight_in_every_way(host_modules: HostModules, monkeypatch: pytest.MonkeyPatch, elsewhere: bool) -> None:
    """Runs launch by launch, recorded and repeated, of products that read a weight's bytes; then also of others that
    read its words: of some columns, and of a shape for which another way is faster."""
    xp, kernels, _ = graph_device(host_modules)
    monkeypatch.setattr(kernels.products, "choice", lambda shape: INTEGER if shape.n == 3 else BYTES)
    world, held, rng = World(kernels=kernels), dict[Any, Any](), np.random.default_rng(5)
    plain = rng.uniform(-1, 1, (4, 6))

    def opening(s: Any, words: np.ndarray) -> None:
        held[s] = s.open_weight(words)

    def product(s: Any, given: Given) -> Any:
        y = s.accept(given.words())
        return [s.reveal(s.matmul(y, held[s]), CLIENT)]

    def products(s: Any, given: Given) -> Any:
        y = s.accept(given.words())
        return [s.reveal(z, CLIENT) for z in (s.matmul(y, held[s]), s.matmul(y[:3], held[s]),
                                              s.matmul(y, held[s].columns(2, 5)))]

    def answers(program: Any) -> None:
        x = rng.uniform(-2, 2, (5, 4))
        mask = rng.integers(0, 2**64, x.shape, dtype=np.uint64)
        script = world.script(program, Given(ghost(x.shape)))
        mine, theirs = world.run(program, Given(encode(x, 16) - mask), Given(mask), script=script).results
        exact = [x @ plain, x[:3] @ plain, (x @ plain)[:, 2:5]]
        for a, b, z in zip(mine, theirs, exact, strict=False):
            np.testing.assert_allclose(decode(xp.asnumpy(a) + xp.asnumpy(b), 16), z, atol=2**-9)

    mask = rng.integers(0, 2**64, plain.shape, dtype=np.uint64)
    world.run(opening, encode(plain, 16) - mask, mask)
    for program in [product] * 3 + ([products] * 3 + [product] * 2 if elsewhere else []):
        answers(program)
    assert not world.notes and sum(graph.launches for graph in xp.gpu.graphs) == (6 if elsewhere else 2)
    assert [held[s].data.rights._on_host for s in world.parties] == [not elsewhere] * 2
