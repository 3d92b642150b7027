"""The engine on CUDA kernels: whole programs, on the host's fibers and on a device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cuda_lab import device
from mpc_lab import PAIRS, SEEDS, close_sockets

from secformer.mpc.fixed import decode, encode
from secformer.mpc.functions import Exponential, Series
from secformer.mpc.guarding import Guarded
from secformer.mpc.kernels import Kernels
from secformer.mpc.session import CLIENT
from secformer.mpc.simulate import World

WAVE = Series(4, (0.1, 0.5, 0.25), (0.0, -0.3, 0.2), linear=0.5)


def program(s: Any, mine: np.ndarray) -> Any:
    """Every verb once; two openings of several items; narrow words; a provisioned weight, and columns of a stack."""
    y = s.accept(mine)
    w = s.open_weight(mine[:, :5].copy())
    a, b = s.mul_many([(y, y), (y, s.negate(y))])
    out = a + b + s.relu(y, bound=8.0) + s.lift(s.maximum(y, 1, bound=8.0, precision=8))[0]
    (waved,) = s.series(y, [WAVE])
    (small,) = s.less(y, [1.0], bound=8.0)
    reached = s.reached(y, [-1.0, 2.0], low=-3.0, high=3.0, precision=4, width=40)
    grown = s.exponential(y - 3.0, Exponential(5, 0.25))
    own = s.matmul(y[:, :6], w)
    square = s.matmul(y, y.transpose(1, 0))
    stack = s.open_weight(mine.reshape(2, 4, 6).copy())
    some = s.matmul(y.reshape(2, 6, 4), stack.columns(1, 5)).reshape(6, 8)
    return [s.reveal(x, CLIENT) for x in (out, waved, grown, s.mul(small, y), *reached, own, square, some)]


def guarded(s: Any, mine: np.ndarray) -> Any:
    """The same under a guard, with a promise and an expectation that are checked, and a row that leaves its domain."""
    with s.guarding({6: np.arange(6)}, 6, Guarded(apart=True)) as guard:
        out = program(s, mine)
        y = s.accept(mine)
        s.series(y, [replace(WAVE, domain=(-2.0, 2.0))])
        s.settle(s.checked((y * 0.3).promise(2), -0.8, 0.8, "input"))
        s.expect(y[:, :1], 1, 0.3, "row", by=y[:, :1])
    return [*out, guard.words]


@pytest.mark.parametrize("program", [program, guarded])
def test_a_world_gives_the_reference_s_words(ordered_cuda: Kernels, reference: Kernels, program: Any) -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(-3, 3, (6, 8))
    mask = rng.integers(0, 2**64, x.shape, dtype=np.uint64)
    shares = encode(x, 16) - mask, mask
    results = [World(kernels=k, unsafe_seeds=SEEDS).run(program, *shares).results for k in (ordered_cuda, reference)]
    for mine, expected in zip(*results, strict=True):
        for got, want in zip(mine, expected, strict=True):
            np.testing.assert_array_equal(got, want)
    (a, *_, last), (b, *_, other) = results[0]
    if program is guarded:
        marked = (last + other) != 0
        assert 0 < marked.sum() < marked.size
    assert np.abs(decode(a + b, 16) - (np.maximum(x, 0) + x.max(1, keepdims=True))).max() < 2e-2


def test_products_that_lift_give_the_reference_s_words(ordered_cuda: Kernels, reference: Kernels) -> None:
    """Lifted on either side, on both, in squares, broadcast, and guarded."""
    def program(s: Any, mine: np.ndarray) -> Any:
        y = s.accept(mine)
        with s.guarding({6: np.arange(6), 1: np.zeros(1, dtype=int)}, 6) as guard:
            p, q = s.mul_many([(y, y[:, :1]), (y[:1], y[:1])], magnitude=7)
            found = s.mul_many([(p, q), (s.checked(p, -9.0, 9.0, "input"), p), (y, p), (q, y[:, 1:2])], magnitude=14)
            found += [s.matmul(y * 0.7, y.transpose(1, 0)), s.square(s.square(y.reshape(6, 2, 4), whole=True))]
        return [*(s.reveal(x, CLIENT) for x in found), guard.words]

    rng = np.random.default_rng(7)
    x = rng.uniform(-3, 3, (6, 8))
    mask = rng.integers(0, 2**64, x.shape, dtype=np.uint64)
    (mine, theirs), expected = (World(kernels=k, unsafe_seeds=SEEDS).run(program, encode(x, 16) - mask, mask).results
                                for k in (ordered_cuda, reference))
    for got, want in zip([*mine, *theirs], [*expected[0], *expected[1]], strict=True):
        np.testing.assert_array_equal(got, want)
    p, q = x * x[:, :1], x[:1] ** 2
    for a, b, exact in zip(mine, theirs, [p * q, p * p, x * p, q * x[:, 1:2], x @ x.T * 0.7, x.reshape(6, 2, 4) ** 4],
                           strict=False):
        assert np.abs(decode(a + b, 16) - exact).max() < 2.0**-8


def test_on_a_device() -> None:
    """Says in one line of a test report whether a GPU took part."""
    assert device().backend.on_gpu


@pytest.mark.parametrize("connect", sorted(PAIRS))
def test_worlds_on_a_device(reference: Kernels, connect: str) -> None:
    """Several runs on streams that last, with provisioned weights, larger than a block, in process and over sockets."""
    kernels = device()
    rng = np.random.default_rng(4)
    x = rng.uniform(-0.15, 0.15, (300, 300))
    mask = rng.integers(0, 2**64, x.shape, dtype=np.uint64)
    shares = encode(x, 16) - mask, mask
    weights: dict[Any, Any] = {}

    def load(s: Any, mine: np.ndarray) -> None:
        weights[s] = s.open_weight(mine)

    def use(s: Any, mine: np.ndarray) -> Any:
        y = s.accept(mine)
        for _ in range(3):
            y = s.relu(s.matmul(y, weights[s]), bound=8.0)
        return s.reveal(y, CLIENT)

    answers = []
    for k in (kernels, reference):
        world = World(kernels=k, unsafe_seeds=SEEDS, connect=PAIRS[connect])
        world.run(load, *shares)
        answers.append([decode(a + b, 16) for a, b in (world.run(use, *shares).results for _ in range(3))])
    close_sockets()
    for mine, expected in zip(*answers, strict=True):
        assert np.abs(mine - expected).max() < 2.0**-10  # chunks, and so masks, differ from the reference's


def test_chunks_of_material_change_no_answer(reference: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU takes material in larger pieces than a CPU: plan, dealer and parties follow."""
    x = np.random.default_rng(2).uniform(-3, 3, (6, 8))
    shares = encode(x, 16) - np.uint64(5), np.full(x.shape, 5, dtype=np.uint64)
    answers = []
    for chunk in (7, 1 << 18):
        monkeypatch.setattr(type(reference), "chunk", chunk)
        outcome = World(kernels=reference).run(program, *shares)
        answers.append([decode(a + b, 16) for a, b in zip(*outcome.results, strict=True)])
        assert {kind.chunk for kind in outcome.plan.kinds if hasattr(kind, "chunk")} == {chunk}
    for mine, other in zip(*answers, strict=True):
        assert np.abs(mine - other).max() < 2.0**-10
