"""Which plans are in demand: how often and how lately they were asked for, what waits, and what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from secformer.mpc.dealer.kinds import Lift
from secformer.mpc.dealer.plan import Plan
from secformer.roles.demand import ASKED, FORGET, HALF, SHAPES, Demand, shape_of, shapes_of
from secformer.roles.messages import Half, StepRequest


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def plan(number: int) -> Plan:
    return Plan((Lift(number + 1, 16, 48),))


def half(*lengths: int, step: Any = None) -> Half:
    sizes = np.array(lengths)
    return Half("00", "11", sizes, np.arange(sizes.max()) < sizes[:, None], step=step)


@pytest.fixture
def clock() -> Iterator[Clock]:
    yield Clock()


@pytest.fixture
def demand(clock: Clock) -> Demand:
    return Demand(clock)


def test_a_plan_that_came_once_is_remembered_and_not_worth_material(demand: Demand) -> None:
    demand.note(plan(1), b"one")
    assert not demand.wants({})[plan(1).digest].worth
    for _ in range(ASKED - 1):
        demand.note(plan(1), b"one")
    want = demand.wants({})[plan(1).digest]
    assert want.worth and want.plan == plan(1) and want.weight == ASKED


def test_what_waits_counts_with_what_came(demand: Demand) -> None:
    demand.note(plan(1), b"one")
    demand.note(plan(2), b"two")
    wants = demand.wants({b"one": 3, b"three": 9})
    assert wants[plan(1).digest].worth and wants[plan(1).digest].weight == 4
    assert not wants[plan(2).digest].worth and len(wants) == 2


def test_asks_count_less_as_they_age_and_are_forgotten(demand: Demand, clock: Clock) -> None:
    for _ in range(4):
        demand.note(plan(1), b"one")
    clock.now += HALF
    assert demand.wants({})[plan(1).digest].weight == pytest.approx(2)
    demand.note(plan(1), b"one")
    assert demand.wants({})[plan(1).digest].weight == pytest.approx(3)
    clock.now += FORGET
    assert plan(1).digest in demand.wants({})
    clock.now += 1
    assert not demand.wants({})
    demand.note(plan(1), b"one")
    assert not demand.wants({})[plan(1).digest].worth, "it begins anew"


def test_only_the_plans_that_were_asked_for_last_are_remembered(demand: Demand) -> None:
    for number in range(SHAPES):
        demand.note(plan(number), b"")
    demand.note(plan(0), b"")
    demand.note(plan(SHAPES), b"")
    wants = demand.wants({})
    assert len(wants) == SHAPES and plan(0).digest in wants and plan(1).digest not in wants


def test_what_lasts_longer_has_the_higher_ratio(demand: Demand) -> None:
    for number, times in ((1, 2), (2, 8)):
        for _ in range(times):
            demand.note(plan(number), b"")
    wants = demand.wants({})
    rare, common = wants[plan(1).digest], wants[plan(2).digest]
    assert common.ratio(0) < rare.ratio(0) and common.ratio(10) > rare.ratio(0) and rare.ratio(1) == 2 * rare.ratio(0)


def test_a_party_that_has_just_begun_does_not_know_what_nobody_wants(demand: Demand, clock: Clock) -> None:
    clock.now += FORGET
    assert not demand.complete()
    clock.now += 1
    assert demand.complete()


def test_shapes_are_lengths_and_masks_and_no_steps() -> None:
    step = StepRequest("0" * 32, 0, 1)
    shapes = shapes_of([half(3, 5), half(3, 5), half(5, 3), half(3), half(3, step=step)])
    assert shapes == {shape_of(half(3, 5)): 2, shape_of(half(5, 3)): 1, shape_of(half(3)): 1}
    filled = Half("00", "11", np.array([3]), np.ones((1, 4), bool))
    assert shape_of(filled) != shape_of(half(3))
