"""Caches: rows that are opened once and stay right operands of products, from run to run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import KERNELS, SEEDS, ULP, Sent, examples, kernels_named, looks_uniform, split, tapped, wire_words

from secformer.mpc.caches import Cache
from secformer.mpc.errors import Desync, ProtocolError, ReusedRandomness, ShapeError
from secformer.mpc.fixed import decode, encode
from secformer.mpc.guarding import Guarded
from secformer.mpc.prg import Stream
from secformer.mpc.session import CLIENT, Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.secure import SecureSession
from secformer.mpc.simulate import Outcome, World

G, D, LARGEST = 2, 3, 6


class Attention:
    """q k^T and p v over a cache of keys and one of values that grow from run to run, at two parties and in the twin.

    A step takes n queries (n, G, D), new keys and values (n, G, D), and weights (n, G, T).
    """

    def __init__(self, world: World, base: np.ndarray | None = None, **cache: Any):
        self.world, self.twin, self.name = world, PlainSession(world.fixed), world.fresh()
        self.base: dict[Session, Any] = {}
        self.rng = np.random.default_rng(1)
        if base is not None:
            def opened(s: Any, words: Any) -> None:
                self.base[s] = s.open_weight(words)

            world.run(opened, *split(encode(base, 16), self.rng))
            opened(self.twin, base)
        self.caches = {s: self.fresh(s) for s in (*world.parties, self.twin)}

    def fresh(self, s: Any) -> tuple[Cache, Cache]:
        return s.cache(0, (G, D), self.base.get(s)), s.cache(1, (G, D), self.base.get(s))

    def program(self, capacity: int, magnitude: int = LARGEST, bound: float | None = None,
                pending: bool = False) -> Any:
        def program(s: Any, given: Any) -> Any:
            keys, values = self.caches[s] if s in self.caches else self.fresh(s)
            q, k, p, v = (s.accept(x) for x in given)
            if pending:
                k, v = k * 0.75, v * 0.75
            if bound is not None:
                k = s.checked(k, -bound, bound, "key")
            for cache in (keys, values):
                cache.grow(capacity)
            pairs = [(q.transpose(1, 0, 2).reshape(1, G, -1, D), keys.taking(k).transposed()),
                     (p.transpose(1, 0, 2).reshape(1, G, -1, capacity), values.taking(v))]
            return [s.reveal(s.matmul(x, y, magnitude=magnitude), CLIENT) for x, y in pairs]

        return program

    def step(self, capacity: int, *values: np.ndarray, program: Any = None) -> tuple[Outcome, list[np.ndarray]]:
        """The run, and how far its results are from the twin's."""
        program = program or self.program(capacity)
        halves = list(zip(*(split(encode(x, 16), self.rng) for x in values), strict=True))
        out = self.world.run(program, *halves, cache=self.name)
        found = [decode(mine + theirs, 16) for mine, theirs in zip(*out.results, strict=True)]
        return out, [np.abs(a - b) for a, b in zip(found, program(self.twin, values), strict=True)]

    def drawn(self, n: int, capacity: int, live: int) -> list[np.ndarray]:
        """Inputs of n tokens; weights are 0 beyond the first `live` slots."""
        q, k, v = (self.rng.uniform(-2, 2, (n, G, D)) for _ in range(3))
        p = self.rng.uniform(0, 1, (n, G, capacity)) * (np.arange(capacity) < live)
        return [q, k, p, v]


def live_columns(error: np.ndarray, live: int) -> np.ndarray:
    return error[..., :live]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("prefix", [0, 2])
def test_steps_are_those_of_the_twin(kernels: str, prefix: int) -> None:
    """A prompt of three tokens, then single ones, then two at once; the cache grows on the way."""
    base = np.random.default_rng(2).uniform(-2, 2, (prefix, G * D)) if prefix else None
    run = Attention(World(kernels=kernels_named(kernels)), base)
    live = prefix
    for n, capacity in ((3, prefix + 4), (1, prefix + 4), (1, prefix + 7), (2, prefix + 7)):
        live += n
        out, (scores, means) = run.step(capacity, *run.drawn(n, capacity, live))
        assert live_columns(scores, live).max() < 40 * ULP and means.max() < 40 * ULP
        assert out.cost.rounds == 4  # two products, and the results' truncations
    keys, values = run.caches[run.world.parties[0]]
    assert keys.filled == values.filled == live and keys.capacity == prefix + 7


@pytest.mark.parametrize("kernels", KERNELS)
def test_rows_with_a_truncation_pending(kernels: str) -> None:
    """As a model's are: they lose their low bits where they are opened."""
    run = Attention(World(kernels=kernels_named(kernels)))
    pending = run.program(8, pending=True)
    for n, live in ((3, 3), (1, 4), (2, 6)):
        _, (scores, means) = run.step(8, *run.drawn(n, 8, live), program=pending)
        assert live_columns(scores, live).max() < 40 * ULP and means.max() < 40 * ULP


def test_a_step_opens_its_own_rows_alone() -> None:
    """Bytes do not depend on how many rows came before; the recorder tells them before."""
    run = Attention(World(kernels=kernels_named(KERNELS[-1])))
    costs = []
    for live in (1, 2, 3):
        out, _ = run.step(8, *run.drawn(1, 8, live))
        costs.append(out.cost.bytes)
        assert out.plan.bytes == out.cost.bytes
    assert len(set(costs)) == 1
    # q and p in words of 40 bits, which hold 2^6 with 32 fractional bits; k and v in all that they are right in
    one = 5 * (G * D + G * 8) + 8 * 2 * G * D
    truncated = 3 * (G * 8 + G * D)
    assert costs[0] == 2 * (one + truncated)


def test_a_plan_serves_all_steps_of_a_capacity() -> None:
    run = Attention(World(kernels=kernels_named(KERNELS[-1])))
    first, _ = run.step(8, *run.drawn(1, 8, 1))
    second, _ = run.step(8, *run.drawn(1, 8, 2))
    assert first.plan == second.plan and first.plan.digest == second.plan.digest
    wider, _ = run.step(9, *run.drawn(1, 9, 3))
    assert wider.plan != first.plan


def test_what_is_opened_is_uniform_and_masks_do_not_serve_twice() -> None:
    """The same row, step after step: each is opened as other words, and all of them look uniform. So do two rows'
    differences, which a mask that served twice would give away."""
    logs: tuple[list[Sent], list[Sent]] = ([], [])
    world = World(kernels=kernels_named(KERNELS[-1]), unsafe_seeds=SEEDS, connect=tapped(logs))
    run = Attention(world)
    given, opened = [np.repeat(x, 32, axis=0) for x in run.drawn(1, 256, 0)], []
    for _ in range(8):
        logs[0].clear(), logs[1].clear()
        run.step(256, *given)
        mine, theirs = (wire_words(log[0][1][5 * 32 * G * D :], 64) for log in logs)  # behind the queries'
        opened.append(mine + theirs)
    rows = np.stack(opened).reshape(-1, G * D)
    assert len(rows) == 256 and len(np.unique(rows)) == rows.size
    assert looks_uniform(rows, 64)
    assert looks_uniform(np.diff(rows, axis=0), 64)


def test_caches_of_two_names_have_nothing_in_common() -> None:
    world = World(kernels=kernels_named(KERNELS[-1]), unsafe_seeds=SEEDS)
    one, other = Attention(world), Attention(world)
    given = one.drawn(1, 4, 1)
    for run in (one, other):
        run.step(4, *given)
    for s in world.parties:
        mine, theirs = (run.caches[s][0].data for run in (one, other))
        assert not (mine.opened[0] == theirs.opened[0]).any() and not (mine.factor[1:] == theirs.factor[1:]).any()
        keys, values = (cache.data for cache in one.caches[s])
        assert not (keys.factor[1:] == values.factor[1:]).any()


def test_a_slot_serves_once() -> None:
    run = Attention(World(kernels=kernels_named(KERNELS[-1])))
    run.step(2, *run.drawn(2, 2, 2))
    before = run.caches[run.world.parties[0]][0].data.opened.copy()
    with pytest.raises(ReusedRandomness, match="1 rows came for a cache of 2 slots, of which 2 are used up"):
        run.step(2, *run.drawn(1, 2, 2))
    np.testing.assert_array_equal(run.caches[run.world.parties[0]][0].data.opened, before)


def test_a_step_that_fails_uses_its_slots_up() -> None:
    """What came before it stays right, in the slots that are left."""
    run = Attention(World(kernels=kernels_named(KERNELS[-1])))
    run.step(6, *run.drawn(1, 6, 1))
    program = run.program(6)

    def failing(s: Any, given: Any) -> Any:
        found = program(s, given)
        if isinstance(s, SecureSession):
            raise ZeroDivisionError
        return found

    with pytest.raises(ZeroDivisionError):
        run.step(6, *run.drawn(2, 6, 0), program=failing)
    for s in run.world.parties:
        assert run.caches[s][0].filled == 3
    program(run.twin, run.drawn(2, 6, 0))
    for keys, _ in run.caches.values():
        assert keys.filled == 3
    q, k, p, v = run.drawn(1, 6, 1)
    p[..., 3] = 0.5
    _, (scores, means) = run.step(6, q, k, p, v)
    assert scores[..., [0, 3]].max() < 40 * ULP and means.max() < 40 * ULP


def test_a_longer_mask_begins_with_a_shorter_one() -> None:
    """So a cache that grows keeps the masks of its first slots."""
    for kernels in map(kernels_named, KERNELS):
        long = Stream(SEEDS[0], "cache", 1, 0, kernels=kernels).words(1000)
        for count in (1, 7, 64, 999):
            short = Stream(SEEDS[0], "cache", 1, 0, kernels=kernels).words(count)
            np.testing.assert_array_equal(short, long[:count])


@given(st.integers(1, 3), st.integers(0, 3), st.integers(1, 5))
@examples(12)
def test_steps_of_any_size(n: int, spare: int, steps: int) -> None:
    run = Attention(World(kernels=kernels_named(KERNELS[-1])))
    for i in range(steps):
        capacity = (i + 1) * n + spare
        _, (scores, means) = run.step(capacity, *run.drawn(n, capacity, (i + 1) * n))
        assert scores[..., : (i + 1) * n].max() < 40 * ULP and means.max() < 40 * ULP


def test_rows_that_are_checked_are_checked_before_they_are_opened() -> None:
    """A mask that stands has no tables: new rows with an interval are truncated first, one round more."""
    run = Attention(World(kernels=kernels_named(KERNELS[-1])))

    def guarded(limit: float) -> Any:
        def program(s: Any, given: Any) -> Any:
            guard = Guarded()
            with s.guarding({1: np.zeros(1, np.int64)}, 1, guard):
                found = run.program(4, bound=limit)(s, given)
            return [*found, guard.words]
        return program

    for limit, marked in ((3.0, False), (0.5, True)):
        given = run.drawn(1, 4, 1)
        given[1][:] = 1.0
        halves = list(zip(*(split(encode(x, 16), run.rng) for x in given), strict=True))
        out = run.world.run(guarded(limit), *halves, cache=run.name)
        words = out.results[0][-1] + out.results[1][-1]
        assert (words != 0).any() == marked


def test_refused() -> None:
    run = Attention(World(kernels=kernels_named(KERNELS[-1])))
    cache = run.twin.cache(5, (G, D))
    cache.grow(3)
    with pytest.raises(ShapeError, match="cannot shrink to 2"):
        cache.grow(2)
    with pytest.raises(ShapeError, match=r"takes \(n, 2, 3\), got \(1, 3, 2\)"):
        cache.taking(run.twin.public(np.zeros((1, 3, 2))))
    with pytest.raises(ShapeError, match=r"those of a weight \(P, 6\)"):
        run.twin.cache(6, (G, D), run.twin.open_weight(np.zeros((2, 5))))
    assert repr(cache) == "Cache(5, 0 of 3 slots, rows (2, 3))"
    x = run.twin.public(np.zeros((1, G, 1, D)))
    with pytest.raises(ShapeError, match="an element-wise product takes shares"):
        run.twin.mul(x, cache.taking(run.twin.public(np.zeros((1, G, D)))))  # type: ignore[arg-type]
    given = run.drawn(1, 4, 1)
    halves = list(zip(*(split(encode(x, 16), run.rng) for x in given), strict=True))
    with pytest.raises(ProtocolError, match="names no caches"):
        run.world.run(run.program(4), *halves)


def test_masks_of_one_width() -> None:
    """Another magnitude may need wider words than those that the first rows were right in."""
    run = Attention(World(kernels=kernels_named(KERNELS[-1])))
    run.step(4, *run.drawn(1, 4, 1), program=run.program(4, pending=True))
    with pytest.raises(Desync, match="opened in 48 bits and is needed in 64"):
        run.step(4, *run.drawn(1, 4, 2), program=run.program(4, magnitude=20, pending=True))


@pytest.mark.parametrize("kernels", KERNELS)
def test_products_that_grow_wider(kernels: str) -> None:
    """Rows that are right in whole words serve products of any width: those of a longer cache may need more bits."""
    run = Attention(World(kernels=kernels_named(kernels)))
    for live, magnitude in ((1, LARGEST), (2, 20), (3, LARGEST)):
        _, (scores, means) = run.step(4, *run.drawn(1, 4, live), program=run.program(4, magnitude=magnitude))
        assert live_columns(scores, live).max() < 40 * ULP and means.max() < 40 * ULP
