"""Sources and plans: order, burning, ends, digests."""

from __future__ import annotations

import pytest
from mpc_lab import SEEDS, dealt, kernels_named

from secformer.mpc.dealer.comparisons import Less, Relu
from secformer.mpc.dealer.kinds import ExpMask, Kind, Lift, SeriesMask, WeightMask
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.products import Hadamard, MatMul
from secformer.mpc.dealer.service import Dealer
from secformer.mpc.dealer.source import Source
from secformer.mpc.errors import Desync, PeerLost, ReusedRandomness
from secformer.mpc.meter import Meter
from secformer.mpc.net.channel import local_pair

SQUARE = Hadamard(((4,),), (48,), ((0, 0, 48),), (None,))
CUT = Lift(4, 16, 48)
TWO = Hadamard(((4,), (4,)), (48, 48), ((0, 0, 48), (0, 1, 48)), (None, None))
CHUNKS = SeriesMask(4, 24, 2, 48, chunk=2)
ALL: list[Kind] = [
    SQUARE,
    CUT,
    SeriesMask(4, 24, 2, 48),
    ExpMask(4, 24, 6, 1 << 18, 41),
    Less(4, 24, 48),
    WeightMask(0, (2, 2), 64),
    MatMul(((2, 2), (2, 2)), (48, 48), ((0, 1, 48),), (None, None)),
]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: type(kind).__name__)
def test_every_field_burns_when_drawn(rank: int, kind: Kind) -> None:
    material = dealt([kind])[rank].take(kind)
    for field in kind.fields():
        assert material.draw(field.name).size == field.count
        with pytest.raises(ReusedRandomness, match=field.name):
            material.draw(field.name)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_field_that_does_not_exist_is_refused(rank: int) -> None:
    with pytest.raises(ReusedRandomness, match="mask7"):
        dealt([SQUARE])[rank].take(SQUARE).draw("mask7")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_correlation_is_handed_out_once(rank: int) -> None:
    source = dealt([SQUARE])[rank]
    source.take(SQUARE)
    with pytest.raises(ReusedRandomness, match="used up"):
        source.take(SQUARE)
    with pytest.raises(ReusedRandomness):
        source.take(SQUARE)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    "other",
    [
        CUT,
        Hadamard(((5,),), (48,), ((0, 0, 48),), (None,)),
        Hadamard(((4,),), (40,), ((0, 0, 48),), (None,)),
        Hadamard(((4,),), (48,), ((0, 0, 40),), (None,)),
        Hadamard(((2, 2),), (48,), ((0, 0, 48),), (None,)),
        MatMul(((4,),), (48,), ((0, 0, 48),), (None,)),
        Hadamard(((4,),), (48,), ((0, 0, 48),), (3,)),
    ],
    ids=repr,
)
def test_another_kind_than_planned_is_a_desync_and_burns(rank: int, other: Kind) -> None:
    source = dealt([SQUARE, SQUARE])[rank]
    with pytest.raises(Desync, match="correlation 0") as caught:
        source.take(other)
    assert repr(SQUARE) in str(caught.value)
    assert repr(other) in str(caught.value)
    source.take(SQUARE)  # the second one: the first is gone
    with pytest.raises(ReusedRandomness):
        source.take(SQUARE)


def test_derived_fields_out_of_order_are_a_desync_for_party_1() -> None:
    material = dealt([CHUNKS])[1].take(CHUNKS)
    with pytest.raises(Desync, match="words0"):
        material.draw("words1")


@pytest.mark.parametrize("rank", [0, 1])
def test_fields_of_one_message_come_in_any_order(rank: int) -> None:
    drawn = [dealt([TWO])[rank].take(TWO) for _ in range(2)]
    first = [drawn[0].draw(name) for name in ("product0", "product1")]
    second = [drawn[1].draw(name) for name in ("product1", "product0")]
    for x, y in zip(first, second[::-1], strict=True):
        assert (x == y).all()


def test_corrections_left_over_are_noticed() -> None:
    source = dealt([CHUNKS, SQUARE])[1]
    source.take(CHUNKS).draw("words0")  # words1 is never drawn
    with pytest.raises(Desync):
        source.take(SQUARE).draw("product0")


def test_a_silent_dealer_is_lost() -> None:
    _, feed = local_pair("the dealer", "party 1", deadline=0.05)
    source = Source(SEEDS[1], 0, Plan((CUT,)), feed, kernels_named("numpy"), Meter())
    with pytest.raises(PeerLost, match="the dealer"):
        source.take(CUT).draw("wraps")


def test_corrections_are_counted() -> None:
    meter = Meter()
    dealer_end, feed = local_pair("the dealer", "party 1")
    source = Source(SEEDS[1], 0, Plan((SQUARE,)), feed, kernels_named("numpy"), meter)
    Dealer(SEEDS, kernels_named("numpy")).deal(Plan((SQUARE,)), 0, dealer_end)
    source.take(SQUARE).draw("product0")
    assert meter.cost.dealer_bytes == SQUARE.corrections == 24


def test_equal_plans_have_equal_digests() -> None:
    a, b = Plan(tuple(ALL), 3, 100), Plan(tuple(ALL), 3, 100)
    assert a == b
    assert a.digest == b.digest
    assert len(a.digest) == 64


def test_any_difference_shows_in_the_digest() -> None:
    plans = [
        Plan(()),
        Plan(tuple(ALL)),
        Plan(tuple(ALL[::-1])),
        Plan(tuple(ALL[:-1])),
        Plan((*ALL, SQUARE)),
        Plan(tuple(ALL), 1, 0),
        Plan(tuple(ALL), 0, 1),
        Plan((Lift(4, 16, 48),)),
        Plan((Lift(4, 17, 48),)),
        Plan((Lift(4, 16, 56),)),
        Plan((Lift(5, 16, 48),)),
        Plan((Less(4, 24, 48),)),
        Plan((Relu(4, 24, 48),)),
        Plan((Lift(4, 16, 48), Lift(4, 16, 48))),
    ]
    assert len({p.digest for p in plans}) == len(plans)
    assert len(set(plans)) == len(plans)
