"""What roles tell each other as JSON: plans, costs, and the books of series."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.mpc.dealer import comparisons, kinds, products, thresholds
from secformer.mpc.dealer.comparisons import Comparison, Less, Relu
from secformer.mpc.dealer.kinds import ExpMask, Kind, Lift, SeriesMask, WeightMask
from secformer.mpc.dealer.plan import KINDS, Plan
from secformer.mpc.dealer.products import Bilinear, Hadamard, MatMul
from secformer.mpc.dealer.thresholds import Empty, Reached
from secformer.mpc.errors import Desync
from secformer.mpc.functions import Series
from secformer.mpc.meter import COUNTERS, Cost
from secformer.mpc.ops.book import Reader, Writer, as_fitted, series_from_list, series_to_list

PLAN = Plan((
    MatMul(((1, 2, 3), (3, 4)), (48, 64), ((0, 1, 48),), (None, 7)), Hadamard(((5,), (5,)), (40, 40), ((0, 0, 40),),
                                                                           (None, None)),
    Lift(3, 16, 48), SeriesMask(9, 24, 8, 48), Less(4, 14, 48, 2), Relu(4, 14, 14),
    WeightMask(0, (3, 4), 24), ExpMask(9, 24, 6, 1 << 18, 41), Reached(12, 8, 3, 2), Empty(4, 3, 32, 2, 2),
), 12, 3456, "abc")


def test_what_is_dealt_does_not_depend_on_the_program_s_numbers() -> None:
    assert replace(PLAN, constants="other").dealt == PLAN.dealt == replace(PLAN, rounds=1).dealt
    assert replace(PLAN, kinds=PLAN.kinds[1:]).dealt != PLAN.dealt != replace(PLAN, kinds=PLAN.kinds[::-1]).dealt


def sent(plan: Plan) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(json.dumps(plan.as_dict()))
    return facts


def test_a_plan_survives_json() -> None:
    back = Plan.from_dict(sent(PLAN))
    assert back == PLAN and back.digest == PLAN.digest
    assert list(back.corrections()) == list(PLAN.corrections())
    assert sum(size for _, size in back.corrections()) == PLAN.dealer_bytes


def test_a_plan_of_products_that_lift_survives_json() -> None:
    guards = ((2, 5, 90),), ()
    plan = Plan((Hadamard(((5,), (5, 1)), (48, 48), ((0, 1, 48), (1, 1, 40)), (None, None), guards, (32, 0)),))
    assert Plan.from_dict(sent(plan)) == plan
    for lifts in ([32, 24], [0, 0], []):
        facts = sent(plan)
        facts["kinds"][0][-1] = lifts
        with pytest.raises(Desync):
            Plan.from_dict(facts)


def test_every_kind_can_be_told() -> None:
    concrete = {cls for module in (kinds, comparisons, products, thresholds) for cls in vars(module).values()
                if isinstance(cls, type) and issubclass(cls, Kind) and cls not in (Kind, Bilinear, Comparison)}
    assert set(KINDS.values()) == concrete


@pytest.mark.parametrize("change", [
    lambda f: f.pop("kinds"), lambda f: f.update(kinds=None), lambda f: f.update(format="secformer plan 0"),
    lambda f: f["kinds"].pop(), lambda f: f["kinds"].reverse(), lambda f: f["kinds"][2].__setitem__(1, 4),
    lambda f: f["kinds"][2].__setitem__(1, -3), lambda f: f["kinds"][2].__setitem__(1, 3.0),
    lambda f: f["kinds"][2].__setitem__(1, "3"), lambda f: f["kinds"][2].append(1), lambda f: f["kinds"][2].pop(3),
    lambda f: f["kinds"][2].__setitem__(0, "Kind"), lambda f: f["kinds"][2].__setitem__(0, "__import__"),
    lambda f: f.update(rounds=13), lambda f: f.update(rounds=float("inf")), lambda f: f.update(constants="abd"),
    lambda f: f.update(digest="0" * 64), lambda f: f.update(kinds=[[]]), lambda f: f.update(kinds=[{}]),
])
def test_an_altered_plan_is_a_desync(change: Any) -> None:
    facts = sent(PLAN)
    change(facts)
    with pytest.raises(Desync):
        Plan.from_dict(facts)


def signed(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts with the digest that fits them, as an adversary would send them."""
    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    kinds_of = tuple(KINDS[name](*map(frozen, values)) for name, *values in facts["kinds"])
    return facts | {"digest": Plan(kinds_of, facts["rounds"], facts["bytes"], facts["constants"]).digest}


@pytest.mark.parametrize("row", [
    ["Hadamard", [48], [[0, 0, 48]], [None], [], []], ["Hadamard", 5, [48], [[0, 0, 48]], [None], [], []],
    ["Hadamard", [[3]], [48], [[0, 7, 48]], [None], [], []], ["WeightMask", 0, 12, 64], ["WeightMask", 0, [None], 64],
    ["Lift", True, 16, 48, []], ["Lift", 3, 65, 48, []], ["Lift", 3, 16, 2**40, []], ["Lift", 3, 16],
    ["Lift", 2**40, 16, 48, []], ["Less", 4, 2**40, 48, 2, 8192, []], ["Less", 2**40, 14, 48, 2, 1, []],
    ["Less", 4, 14, 48, 2**40, 8192, []], ["ExpMask", 9, 24, 2**40, 1, 41, 8192, 0, []],
    ["ExpMask", 9, 24, 2, 1, 41, 8192, 0, []], ["SeriesMask", 2**33, 24, 8, 48, 20, 1, 0, []],
    ["SeriesMask", 9, 24, 8, 48, 20, 0, 0, []], ["Empty", 4, 3, 32, 2, 2**40, 8192], ["Lift", 3, 16, 48, [[1, 2]]],
    ["Coin", 2**40], ["UnknownFactor", 8, -4], ["UnknownFactor", 2**20, 2**20],
])
def test_a_plan_that_cannot_be_laid_out_is_refused_before_it_takes_memory(row: list[Any]) -> None:
    """Found by fuzzing: such plans were accepted, with a digest that fits, and the dealer failed later."""
    facts = sent(PLAN) | {"kinds": [row]}
    with pytest.raises(Desync):
        Plan.from_dict(signed(facts) if row[1] is not None else facts)


def costs() -> st.SearchStrategy[Cost]:
    counts = st.integers(0, 2**50)
    seconds = st.floats(0, 1e6)
    values = st.fixed_dictionaries({key: seconds if key.endswith("seconds") else counts for key in COUNTERS})
    leaf = st.builds(lambda name, v: Cost(name, **v), st.text(max_size=8), values)
    return st.builds(lambda root, children: replace(root, children={c.name: c for c in children}), leaf,
                     st.lists(leaf, max_size=3))


@given(cost=costs())
def test_a_cost_survives_json(cost: Cost) -> None:
    assert Cost.from_dict(json.loads(json.dumps(cost.as_dict()))) == cost


@pytest.mark.parametrize("facts", [{}, {"name": "x"}, {**Cost("x").as_dict(), "bytes": None},
                                   {**Cost("x").as_dict(), "children": [1]},
                                   {**Cost("x").as_dict(), "bytes": 10**400}, {**Cost("x").as_dict(), "rounds": True},
                                   {**Cost("x").as_dict(), "seconds": "1"}, {**Cost("x").as_dict(), "bytes": 0.5}])
def test_what_is_no_cost_is_refused(facts: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Cost.from_dict(facts)


def test_a_cost_of_many_scopes_in_each_other_is_refused() -> None:
    facts = Cost("leaf").as_dict()
    for _ in range(40):
        facts = Cost("x").as_dict() | {"children": [facts]}
    with pytest.raises(ValueError, match="in each other"):
        Cost.from_dict(facts)


SERIES = Series(5, (0.1, 0.2, 1 / 3), (0.0, 0.5, 0.25), linear=0.5, magnitude=9)


def test_a_book_gives_the_written_numbers() -> None:
    writer = Writer()
    assert writer(SERIES) is SERIES and as_fitted(SERIES) is SERIES
    (written,) = series_from_list(json.loads(json.dumps(series_to_list(writer.series))))
    assert written == SERIES
    own = replace(SERIES, cos=(0.1 + 1e-12, 0.2 - 1e-3, 1 / 3))  # another machine's fit of the same function
    assert Reader([written])(own) is written


@pytest.mark.parametrize("own", [
    replace(SERIES, period_bits=6), replace(SERIES, cos=(*SERIES.cos, 0.1), sin=(*SERIES.sin, 0.1)),
    replace(SERIES, sin=(0.0, 0.0, 0.0)), replace(SERIES, linear=0.6), replace(SERIES, magnitude=8),
])
def test_another_function_than_the_written_one_is_a_desync(own: Series) -> None:
    with pytest.raises(Desync, match="provision it again"):
        Reader([SERIES])(own)


def test_a_book_that_ends_too_soon_is_a_desync() -> None:
    reader = Reader([SERIES])
    reader(SERIES)
    with pytest.raises(Desync, match="none"):
        reader(SERIES)
