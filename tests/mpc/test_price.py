"""The price on the label against the meter and the wire, for every verb."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import ULP, Sent, examples, run, tapped

from secformer.mpc.dealer.comparisons import Comparison, Less, Relu
from secformer.mpc.dealer.kinds import Coin, ExpMask, Kind, Lift, SeriesMask, WeightMask, Witness
from secformer.mpc.dealer.plan import KINDS
from secformer.mpc.dealer.products import Hadamard, MatMul, UnknownFactor
from secformer.mpc.dealer.thresholds import Empty, Reached
from secformer.mpc.functions import Exponential, Series
from secformer.mpc.meter import Meter
from secformer.mpc.session import CLIENT
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World

F, G = Series(5, (0.5, 1.0, 2.0), (0.0, 0.5, 0.25)), Series(5, (0.0, 1.0), (0.0, 0.0), linear=0.5)
E = Exponential(5, 0.25)
N = 7
# For each verb: the program, its rounds, the bytes that each party sends, for x of N elements (5 N for matrices).
PRICES: dict[str, tuple[Any, int, int]] = {
    "nothing": (lambda s, x: x + x * 2 - x[::-1], 0, 0),
    "mul": (lambda s, x: s.mul(x, x[::-1]), 1, 2 * 6 * N),
    "mul, small": (lambda s, x: s.mul(x, x[::-1], magnitude=6), 1, 2 * 5 * N),
    "square": (lambda s, x: s.square(x), 1, 6 * N),
    "mul_many": (lambda s, x: s.mul_many([(x, x[:1]), (x, x)])[0], 1, 6 * (N + 1)),
    "mul, pending": (lambda s, x: s.mul(x * 0.3, (x * 0.7).promise(4)), 1, (4 + 3) * N),
    "mul, narrow": (lambda s, x: s.mul(Share(s, x.data, 16, 24, 5), x), 1, (3 + 6) * N),
    "mul, promised": (lambda s, x: s.mul(x.promise(4), x[::-1]), 1, (3 + 6) * N),
    "mul, whole": (lambda s, x: s.mul(x, x[::-1], whole=True), 1, 2 * 8 * N),
    "square, pending": (lambda s, x: s.square(s.square(x)), 2, (6 + 4) * N),
    "square, whole": (lambda s, x: s.square(x, whole=True), 1, 8 * N),
    "mul_many, pending": (lambda s, x: (lambda y: s.mul_many([(x * 0.3, y), (y, y)])[0])(x * 0.7), 1, 2 * 4 * N),
    "matmul, pending": (lambda s, x: s.matmul((x * 0.7).reshape(N, 1), x.reshape(1, N)), 1, 2 * 6 * N),
    "matmul, pending and narrow": (lambda s, x: s.matmul(s.square(x).reshape(N, 1), x.reshape(1, N)), 3,
                                   (6 + 4 + 2 * 6) * N),
    "matmul": (lambda s, x: s.matmul(x.reshape(N, 1), x.reshape(1, N)), 1, 2 * 6 * N),
    "settle": (lambda s, x: s.settle(s.square(x))[0], 2, (6 + 4) * N),
    "product of products": (lambda s, x: s.mul(s.square(x), s.mul(x, x[::-1])), 3, 6 * N * 3 + 2 * 4 * N),
    "series": (lambda s, x: s.series(x, [F, G])[0], 1, 3 * N),
    "series of a product": (lambda s, x: s.series(s.square(x), [F])[0], 2, 6 * N + 3 * N),
    "exponential": (lambda s, x: s.exponential(x - 3.0, E), 1, 3 * N),
    "exponential, long": (lambda s, x: s.exponential(x - 3.0, Exponential(9, 0.25)), 1, 4 * N),
    "exponential of a product": (lambda s, x: s.exponential(-s.square(x), E), 2, 6 * N + 3 * N),
    "less": (lambda s, x: s.less(x, [0.0, 1.0, 2.0], bound=60.0)[0], 3, 3 * N + 3 * N + N),
    "less, coarse": (lambda s, x: s.less(x, [0.0], bound=60.0, precision=1)[0], 3, 2 * N + N),
    "relu": (lambda s, x: s.relu(x, bound=128.0), 2, 3 * N + N),
    "maximum": (lambda s, x: s.maximum(x, 0, bound=32.0), 2 * 3, 4 * (N - 1)),
    # 7 values in a row, 3 thresholds: a byte and a third of a word of bits per value, then counts of 3 bits
    "reached": (lambda s, x: s.reached(x, [-1.0, 0.0, 1.0], low=-3.0, high=3.0, precision=4)[0], 4, N + 3 * 8 + 3 + 1),
    "reached, in ten bits": (lambda s, x: s.reached(x.reshape(N, 1), [0.0], low=-3.0, high=3.0, precision=7)[0], 4,
                             2 * N + 8 + N + N),
    "select": (lambda s, x: s.select(s.less(x, [0.0], bound=8.0)[0], x, -x), 4, 3 * N + N + N + 7 * N),
    "lift": (lambda s, x: s.lift(s.maximum(x, 0, bound=30.0, precision=3))[0], 7, (2 + 1) * (N - 1) + 2),
}


@pytest.mark.parametrize("verb", sorted(PRICES))
def test_label_plan_meter_and_wire_agree(verb: str, pair: Any) -> None:
    program, rounds, sent = PRICES[verb]
    logs: tuple[list[Sent], list[Sent]] = ([], [])
    x = np.linspace(-3, 3, N)
    _, outcome = run(program, x, raw=True, connect=tapped(logs, pair))
    cost, plan = outcome.cost, outcome.plan
    assert plan.rounds == cost.rounds == rounds
    assert plan.bytes == cost.bytes == 2 * sent
    assert cost.offline_rounds == cost.offline_bytes == 0
    assert plan.dealer_bytes == cost.dealer_bytes
    assert [sum(p.size for _, p in log) for log in logs] == [sent, sent]
    assert len(logs[0]) == len(logs[1]) == rounds


ALONE: dict[type[Kind], Any] = {
    **{kind: PRICES[verb][0] for kind, verb in ((Hadamard, "mul"), (MatMul, "matmul"), (SeriesMask, "series"),
                                                (ExpMask, "exponential"), (Less, "less"), (Relu, "relu"))},
    Lift: lambda s, x: s.settle(x * 0.3)[0],
    WeightMask: lambda s, x: [s.open_weight(x.data.reshape(1, N)), x][1],
}
RIDING = (Coin, Witness, UnknownFactor)  # no verb's: weighed in test_guarding and ops/test_zero
PAIRED = (Reached, Empty)  # one verb's, one after the other: weighed in ops/test_thresholds


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind not in RIDING + PAIRED])
def test_the_rounds_stated_on_a_kind_are_those_of_its_verb(kind: type[Kind]) -> None:
    _, outcome = run(ALONE[kind], np.linspace(-3, 3, N), raw=True)
    assert [type(k) for k in outcome.plan.kinds] == [kind]
    assert outcome.cost.rounds + outcome.cost.offline_rounds == outcome.plan.rounds == kind.rounds


@examples(15)
@given(n=st.integers(1, 40), precision=st.sampled_from([0, 3, None]))
def test_maximum_costs_two_rounds_a_level(n: int, precision: int | None) -> None:
    x = np.rint(np.random.default_rng(n).uniform(-5, 5, size=(3, n)) / ULP) * ULP
    _, outcome = run(lambda s, x: s.maximum(x, 1, bound=8.0, precision=precision), x, raw=True)
    assert outcome.cost.rounds == outcome.plan.rounds == 2 * math.ceil(math.log2(n))
    assert sum(k.count for k in outcome.plan.kinds if isinstance(k, Comparison)) == 3 * (n - 1)
    assert outcome.cost.bytes == outcome.plan.bytes


def test_provisioning_is_offline_and_requests_open_only_the_input() -> None:
    def program(s: Any, x: Share, w: Share) -> list[Share]:
        with s.scope("load"):
            kept = [s.open_weight(w.data, width=width) for width in (64, 32)]
        with s.scope("use"):
            return s.matmul_many([(x, kept[0])]) + s.matmul_many([(x, kept[1])], magnitude=2)

    _, outcome = run(program, np.ones((2, 5)), np.ones((5, 3)), raw=True)
    cost, plan = outcome.cost, outcome.plan
    assert (cost.offline_rounds, cost.offline_bytes) == (2, 2 * 15 * (8 + 4))
    assert (cost.rounds, cost.bytes) == (2, 2 * 10 * (6 + 4))
    assert plan.rounds == cost.rounds + cost.offline_rounds
    assert plan.bytes == cost.bytes + cost.offline_bytes
    assert plan.dealer_bytes == cost.dealer_bytes == 6 * (6 + 4)
    assert list(cost.children) == ["load", "use"]
    assert cost.children["load"].offline_bytes == cost.offline_bytes
    assert cost.children["use"].bytes == cost.bytes
    assert cost.children["use"].dealer_bytes == cost.dealer_bytes


@pytest.mark.parametrize("owner", [0, 1])
@pytest.mark.parametrize("to", [0, 1, CLIENT])
def test_sharing_and_revealing(owner: int, to: Any) -> None:
    def program(s: Any, x: Any) -> Any:
        return s.reveal(s.share(x, owner, shape=(3, 4)), to)

    x = np.ones((3, 4))
    outcome = World().run(program, *((x, None) if owner == 0 else (None, x)))
    messages = 1 if to == CLIENT else 2
    assert outcome.plan.rounds == outcome.cost.rounds == messages
    assert outcome.plan.bytes == outcome.cost.bytes == 8 * 12 * messages


def test_scopes_nest_and_their_parts_add_up() -> None:
    def program(s: Any, x: Share) -> Share:
        with s.scope("layer 0"):
            with s.scope("gelu"):
                x = s.mul(x, x)
            with s.scope("softmax"):
                x = s.relu(s.settle(x)[0], bound=16.0)
        with s.scope("layer 1"), s.scope("gelu"):
            return s.square(x)

    _, outcome = run(program, np.ones(4), raw=True)
    cost = outcome.cost
    assert list(cost.children) == ["layer 0", "layer 1"]
    assert cost.bytes == sum(c.bytes for c in cost.children.values())
    assert cost.rounds == sum(c.rounds for c in cost.children.values()) == 5
    gelu = cost.by_kind()["gelu"]
    assert gelu.bytes == 2 * 6 * 4 * 2 * 1 + 0
    assert gelu.rounds == 2
    assert cost.by_kind()["softmax"].rounds == 3


def test_a_plan_may_be_used_again_and_costs_the_same() -> None:
    world = World()

    def program(s: Any, mine: np.ndarray) -> Any:
        return s.reveal(s.square(s.accept(mine)), CLIENT)

    first = world.run(program, np.ones(3, dtype=np.uint64), np.ones(3, dtype=np.uint64))
    second = world.run(program, np.ones(3, dtype=np.uint64), np.ones(3, dtype=np.uint64), plan=first.plan)
    assert second.plan is first.plan
    assert (first.cost.bytes, first.cost.rounds) == (second.cost.bytes, second.cost.rounds)


def test_offline_blocks_in_each_other_count_once() -> None:
    meter = Meter()
    with meter.scope("part"):
        with meter.offline():
            with pytest.raises(ValueError, match="inside"), meter.offline():
                raise ValueError("inside")
            meter.sent(3)
            meter.round()
        meter.sent(5)
    part = meter.cost.child("part")
    assert (part.offline_bytes, part.bytes, part.offline_rounds, part.rounds) == (3, 5, 1, 0)
    assert 0.0 < part.offline_seconds == meter.cost.offline_seconds
    assert part.seconds > 0.0
