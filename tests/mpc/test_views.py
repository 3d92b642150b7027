"""What each party sees: uniform words and nothing else.

Every verb runs on fixed inputs, all zero and extreme, also shared trivially (party 0 holds the value, party 1 zeros),
and all that travels is caught. A payload may carry no bit beyond the opened width; within it, each message is uniform,
and it stays uniform when its receiver adds what it knows: its own share of the operand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpc_lab import (
    KERNELS,
    SEEDS,
    ULP,
    Sent,
    Words,
    fix_private,
    kernels_named,
    looks_uniform,
    reduced,
    run,
    tapped,
    wire_words,
    words_of,
)

from secformer.mpc.fixed import encode
from secformer.mpc.functions import Exponential, Series
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World

N = 6000
SHORT, LONG = Series(5, (0.0, 1.0), (0.0, 0.5)), Series(8, (0.0, 1.0), (0.0, 0.5))
Program = Callable[..., Any]


def product_with_weight(s: Any, x: Share) -> Share:
    return s.matmul(x.reshape(N // 60, 60), s.open_weight(x.data[:3600].reshape(60, 60)))


def narrow_product_with_weight(s: Any, x: Share) -> Share:
    """As private embeddings: integers times a table, both known modulo 2^24 only."""
    rows = Share(s, x.data, 0, 24, 6)
    return s.matmul(rows.reshape(N // 60, 60), s.open_weight(x.data[:3600].reshape(60, 60), width=24))


def narrow(s: Any, x: Share) -> Share:
    """As many bits as are not whole bytes."""
    return Share(s, x.data, 16, 31, 10)


def guarded(program: Program) -> Program:
    """The program with a guard: the same openings and more, under masks that tables belong to."""

    def body(s: Any, x: Share) -> Share:
        with s.guarding({N: np.arange(N)}, N):
            return program(s, x)

    return body


def expectation(s: Any, x: Share) -> Share:
    s.expect(x, 0, 0.1, "one", by=x)
    return x


VERBS: dict[str, Program] = {
    "mul": lambda s, x: s.mul(x, x[::-1]),
    "square": lambda s, x: s.square(x),
    "square of 17 bits": lambda s, x: s.square(x, magnitude=3),
    "mul_many": lambda s, x: s.mul_many([(x, x[::-1]), (x, x)])[0],
    "mul of pending values": lambda s, x: s.mul(x * 0.3, (x * 0.7)[::-1]),
    "lifted mul of 31 bits": lambda s, x: s.mul(narrow(s, x), narrow(s, x)[::-1]),
    "lifted square of 31 bits": lambda s, x: s.square(narrow(s, x)),
    "matmul without low bits": lambda s, x: s.matmul((x * 0.6).reshape(60, 100), (x * 0.7).reshape(100, 60)),
    "matmul": lambda s, x: s.matmul(x.reshape(60, 100), x.reshape(100, 60)),
    "weight": product_with_weight,
    "weight of 24 bits": narrow_product_with_weight,
    "truncation": lambda s, x: s.settle(x * 0.3)[0],
    "truncation of 31 bits": lambda s, x: s.lift(narrow(s, x))[0],
    "series of 24 bits": lambda s, x: s.series(x, [LONG])[0],
    "series of 21 bits": lambda s, x: s.series(x, [SHORT])[0],
    "exponential of 24 bits": lambda s, x: s.exponential(x, Exponential(8, 0.0)),
    "exponential of 21 bits": lambda s, x: s.exponential(x, Exponential(5, 0.0)),
    "less in 24 bits": lambda s, x: s.less(x, [1.0, -1.0], bound=64.0)[0],
    "less in 22 bits": lambda s, x: s.less(x, [0.0], bound=32.0)[0],
    "relu in 24 bits": lambda s, x: s.relu(x, bound=128.0),
    "relu in 10 bits": lambda s, x: s.relu(x, bound=60.0, precision=3),
    "maximum": lambda s, x: s.maximum(x.reshape(N // 2, 2), 1, bound=31.5, precision=3),
    "thresholds in 8 bits": lambda s, x: s.reached(x.reshape(N // 4, 4), [-3.0, 0.0, 5.5], low=-31.0, high=31.0,
                                                   precision=1)[0],
    "thresholds in 10 bits": lambda s, x: s.reached(x.reshape(N // 2, 2), [30.0], low=-31.0, high=31.0,
                                                    precision=3)[0],
    "select": lambda s, x: s.select(Share(s, x.data, 0, 48, 1), x, -x),
    "guarded series with bits above its period":
        guarded(lambda s, x: s.series(x, [Series(5, (0.0, 1.0), (0.0, 0.5), domain=(-9.0, 9.0))])[0]),
    "guarded exponential": guarded(lambda s, x: s.exponential(x, Exponential(5, 0.0))),
    "guarded truncation": guarded(lambda s, x: s.settle(s.checked((x * 0.3).promise(6), -9.0, 9.0, "input"))[0]),
    "guarded mul": guarded(lambda s, x: s.mul(s.checked((x * 0.3).promise(6), -9.0, 9.0, "in"), (x * 0.7).promise(6))),
    "guarded less": guarded(lambda s, x: s.less(x, [0.0], bound=31.0)[0]),
    "guarded thresholds": guarded(lambda s, x: s.reached(x.reshape(N, 1), [1.0, 2.0], low=-31.0, high=31.0,
                                                        precision=2)[0]),
    "expectation": guarded(expectation),
}
ODD = {"truncation of 31 bits", "series of 21 bits", "exponential of 21 bits", "less in 22 bits", "relu in 10 bits",
       "maximum", "thresholds in 10 bits"}  # not whole bytes
INPUTS = {"zeros": np.zeros(N), "ones": np.full(N, ULP), "high": np.full(N, 31.0), "low": np.full(N, ULP - 31.0)}


def transcript(
    program: Program,
    x: Any,
    *,
    seeds: tuple[bytes, bytes] = SEEDS,
    trivial: bool = False,
    seed: int = 0,
    name: str = KERNELS[-1],
) -> tuple[list[Sent], list[Sent]]:
    """What party 0 sent, and what party 1 sent."""
    logs: tuple[list[Sent], list[Sent]] = ([], [])
    world = World(kernels=kernels_named(name), unsafe_seeds=seeds, connect=tapped(logs))
    run(program, x, world=fix_private(world, seeds[0]), raw=True, trivial=trivial, seed=seed)
    first, second = ([sent for sent in log if sent[0].verb != "coin"] for log in logs)  # four words say nothing
    return first, second


def words(sent: Sent) -> np.ndarray:
    """What a message carries, all of it (every message here has one width)."""
    tag, payload = sent
    assert payload.size == tag.count * -(-tag.bits // 8)
    if packed(tag):
        return np.stack([payload & 15, payload >> 4]).astype(np.uint64)
    return wire_words(payload, tag.bits)


def packed(tag: Any) -> bool:
    """Whether bits of 64 elements share a word: looked at four bits at a time, so that there are enough to count."""
    return bool(tag.verb == "outcome" and tag.bits == 64)


@pytest.mark.parametrize("trivial", [False, True], ids=["shared", "trivially shared"])
@pytest.mark.parametrize("given", sorted(INPUTS))
@pytest.mark.parametrize("verb", sorted(VERBS))
def test_what_travels_is_uniform_and_nothing_above_its_width(verb: str, given: str, trivial: bool) -> None:
    first, second = transcript(VERBS[verb], INPUTS[given], trivial=trivial, name=KERNELS[-1 if trivial else 0])
    assert [t for t, _ in first] == [t for t, _ in second] != []
    for a, b in zip(first, second, strict=True):
        bits = 4 if packed(a[0]) else a[0].bits
        for sent in (a, b):
            assert bits == 64 or not (words(sent) >> np.uint64(bits)).any(), f"{a[0]} carries bits above {bits}"
            assert looks_uniform(words(sent), bits), f"{a[0]} is not uniform"
        total = words(a) ^ words(b) if a[0].verb == "outcome" else words(a) + words(b)
        assert looks_uniform(reduced(total, bits), bits), f"the opened words of {a[0]} are not uniform"


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("given", sorted(INPUTS))
@pytest.mark.parametrize("verb", ["square", "lifted square of 31 bits", "series of 24 bits",
                                  "exponential of 24 bits", *sorted(ODD - {"maximum"})])
def test_the_receivers_own_share_does_not_unmask_a_message(verb: str, given: str, rank: int) -> None:
    """The receiver knows its own share of x; the message plus that share is x plus the sender's part of the mask, which
    must be uniform in every bit that travelled: x is fixed, so a mask that is too short would show at once."""
    x = encode(INPUTS[given], 16)
    mine = np.random.default_rng(0).integers(0, 2**64, size=N, dtype=np.uint64)  # as `run` draws party 0's share
    own = (x - mine, mine)[rank]  # what the receiver holds when party `rank` sends
    sent = transcript(VERBS[verb], INPUTS[given])[rank][0]
    tag, message = sent[0], words(sent)
    own = own >> np.uint64(13 if "in 10 bits" in verb else 0)  # bits that are dropped before the opening
    assert tag.count == N
    above = reduced(message + own, 8 * -(-tag.bits // 8)) >> np.uint64(tag.bits) if tag.bits % 8 else np.zeros(1)
    assert not (message >> np.uint64(tag.bits)).any(), f"bits of x + r above the mask travel: {np.unique(above)}"
    assert looks_uniform(reduced(message + own, tag.bits), tag.bits)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_two_runs_on_the_same_input_open_different_words(verb: str) -> None:
    x = INPUTS["zeros"]
    runs = [transcript(VERBS[verb], x), transcript(VERBS[verb], x, seeds=(bytes(32), bytes([1] * 32)))]
    for a, b in zip(*(zip(*r, strict=True) for r in runs), strict=True):
        bits = 4 if packed(a[0][0]) else a[0][0].bits
        opened = [
            words(p) ^ words(q) if p[0].verb == "outcome" else reduced(words(p) + words(q), bits)
            for p, q in (a, b)
        ]
        size = opened[0].size
        agree = int((opened[0] == opened[1]).sum())
        chance = size / 2.0 ** min(48, bits)
        assert agree <= chance + 8 * np.sqrt(chance) + 3


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_one_world_never_opens_under_the_same_mask_twice(verb: str) -> None:
    """Two runs in one world: serials name other streams, also with fixed seeds."""
    logs: tuple[list[Sent], list[Sent]] = ([], [])
    world = World(kernels=kernels_named("numpy"), unsafe_seeds=SEEDS, connect=tapped(logs))
    program = VERBS[verb]
    for _ in range(2):
        run(program, INPUTS["zeros"], world=world, raw=True, trivial=True)
    for log in logs:
        payloads = [p.tobytes() for _, p in log]
        assert len(set(payloads)) == len(payloads)


def test_views_of_two_inputs_cannot_be_told_apart() -> None:
    """Two-sample test on every byte of every message, over inputs that differ as much as they can."""
    for verb in ("mul", "truncation", "series of 24 bits", "exponential of 24 bits", "less in 24 bits",
                 "relu in 24 bits"):
        for rank in (0, 1):
            logs = [
                transcript(VERBS[verb], INPUTS[given], seeds=(bytes([i] * 32), bytes([i + 1] * 32)), seed=i)[rank]
                for i, given in enumerate(("zeros", "high"))
            ]
            for a, b in zip(*logs, strict=True):
                counts = [np.bincount(payload, minlength=256).astype(np.float64) for _, payload in (a, b)]
                assert np.array_equal(counts[0] > 0, counts[1] > 0)  # 5 outcome bits fill 32 values, not 256
                seen = counts[0] + counts[1] > 0
                statistic = float(((counts[0] - counts[1])[seen] ** 2 / (counts[0] + counts[1])[seen]).sum())
                freedom = int(seen.sum()) - 1
                assert statistic < freedom + 6 * np.sqrt(2 * freedom) + 12


def test_shared_inputs_travel_masked() -> None:
    logs: tuple[list[Sent], list[Sent]] = ([], [])
    world = fix_private(World(unsafe_seeds=SEEDS, connect=tapped(logs)), SEEDS[0])

    def program(s: Any, x: Any) -> Any:
        a = s.share(x, 0, shape=(N,))
        b = s.share(x, 1, shape=(N,))
        return a.data, b.data

    results = world.run(program, np.zeros(N), np.zeros(N)).results
    for log in logs:
        assert [t.verb for t, _ in log] == ["share"]
        assert looks_uniform(words(log[0]), 64)
    assert not np.array_equal(logs[0][0][1], logs[1][0][1])
    for k in (0, 1):
        assert not (results[0][k] + results[1][k]).any()
        assert looks_uniform(results[0][k], 64)


def test_results_are_fresh_shares() -> None:
    """What the client receives says nothing but the result: products of zeros are shared uniformly."""
    for program in (
        lambda s, x: s.square(x),
        lambda s, x: s.mul(x * 0.3, narrow(s, x)),
        lambda s, x: s.relu(x, bound=4.0),
        lambda s, x: s.series(x, [SHORT])[0],
        lambda s, x: s.exponential(x, Exponential(5, 0.0)),
        lambda s, x: s.less(x, [0.0], bound=4.0)[0],
        lambda s, x: s.reached(x.reshape(N, 1), [0.0, 1.0], low=-4.0, high=4.0, precision=3)[1].reshape(N),
    ):
        world = World(kernels=kernels_named("numpy"), unsafe_seeds=SEEDS)
        _, outcome = run(program, np.zeros(N), world=world, trivial=True)
        for (mine,) in outcome.results:
            assert mine.size == N
            # a comparison's result is aligned to 16 fractional bits, which are zero
            assert looks_uniform(mine >> np.uint64(16), 48)


def test_reveal_to_one_party_sends_only_the_others_share() -> None:
    logs: tuple[list[Sent], list[Sent]] = ([], [])
    world = World(unsafe_seeds=SEEDS, connect=tapped(logs))
    x = np.arange(8.0)
    mask = np.random.default_rng(1).integers(0, 2**64, size=8, dtype=np.uint64)
    world.run(lambda s, mine: s.reveal(s.accept(mine), 1), mask, encode(x, 16) - mask)
    assert [t.verb for t, _ in logs[0]] == ["reveal"]
    assert logs[1] == []
    np.testing.assert_array_equal(words(logs[0][0]), mask)


def test_pairs_of_opened_bits_are_uniform() -> None:
    """Bits of one value for two thresholds, of neighbours for one, and beside the opened value: no pair tells of x."""
    for given in INPUTS:
        first, second = transcript(VERBS["thresholds in 8 bits"], INPUTS[given])
        assert [t.verb for t, _ in first] == ["compare", "outcome", "count", "outcome"]
        bits = np.unpackbits(first[1][1] ^ second[1][1], bitorder="little").reshape(3, -1)[:, :N]
        u = reduced(words(first[0]) + words(second[0]), 8)
        for other in (bits[1], np.roll(bits[0], 1), np.roll(bits[0], 4), u >> np.uint64(7), u & np.uint64(1)):
            assert looks_uniform(bits[0] + 2 * other, 2)
        for t in range(3):
            assert looks_uniform(bits[t] + 2 * (u & np.uint64(31)), 6)


def test_dropped_bits_are_not_sent() -> None:
    """A coarse comparison opens the coarse words only."""
    first, _ = transcript(VERBS["relu in 10 bits"], Words(words_of([5 << 16] * N), 16))
    assert first[0][0].bits == 10
    assert first[0][1].size == 2 * N
