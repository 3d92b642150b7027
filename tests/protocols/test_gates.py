"""SiLU and the short formulas of GeLU over their whole domain, against float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples
from protocols_lab import PENDING, Run, grid, worst

from secformer.mpc.errors import RangeError
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.protocols import gates
from secformer.protocols.fidelity import is_declared
from secformer.protocols.gelu import gelu_exact
from secformer.protocols.quantities import opened
from secformer.protocols.ranges import Range
from secformer.protocols.recipes import EXACT, FAITHFUL, Function

ALL = {f.name: f for f in (gates.SILU, gates.GELU_NEW, gates.QUICK_GELU)}
EXACTLY = {name: getattr(gates, f"{name}_exact") for name in ALL}
LIMITS = {"silu": gates.SILU_LIMIT, "gelu_new": gates.TANH_LIMIT, "quick_gelu": gates.QUICK_LIMIT}
domains = st.tuples(st.floats(-60.0, 0.0), st.floats(0.0, 60.0)).filter(lambda d: d[1] > d[0])


def by_hand(name: str, x: float) -> float:
    """The formulas as they are published."""
    if name == "gelu_new":
        return 0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return x / (1.0 + math.exp(-x * (1.702 if name == "quick_gelu" else 1.0)))


@pytest.mark.parametrize("name", ALL)
def test_the_references(name: str) -> None:
    x = grid(-30.0, 30.0, 601)
    np.testing.assert_allclose(EXACTLY[name](x), [by_hand(name, v) for v in x.tolist()], rtol=0.0, atol=1e-14)
    far = EXACTLY[name](np.array([-1e9, 1e9, 0.0]))
    np.testing.assert_array_equal(far, [0.0, 1e9, 0.0])


def test_they_are_not_gelu() -> None:
    """Running GeLU in their place would be a silent error."""
    x = grid(-5.0, 5.0, 4001)
    off = [f"{np.abs(EXACTLY[name](x) - gelu_exact(x)).max():.1e}" for name in ALL]
    assert off == ["1.9e-01", "4.7e-04", "2.0e-02"]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("low, high", [(-26.0, 26.0), (-12.0, 12.0), (-17.0, 25.0), (-0.1, 0.1), (-0.5, 60.0)])
def test_on_its_domain(run: Run, name: str, low: float, high: float) -> None:
    x = grid(low, high)
    got = run(lambda s, x: ALL[name].protocol(s, x, {"input": Range(low, high)}), x, fracs=[PENDING])
    assert np.abs(got - EXACTLY[name](x)).max() <= 2e-4


@pytest.mark.parametrize("name", ALL)
def test_far_out(run: Run, name: str) -> None:
    x = np.concatenate([grid(-2000.0, 2000.0), grid(-20.0, 20.0), [-112.0, 112.0]])
    got = run(lambda s, x: ALL[name].protocol(s, x, {"input": Range(-2000.0, 2000.0)}), x, fracs=[PENDING])
    assert np.abs(got - EXACTLY[name](x)).max() <= 2e-4


@pytest.mark.parametrize("name", ALL)
def test_beyond_its_limit_it_is_nothing_or_the_input(name: str) -> None:
    limit = LIMITS[name]
    assert abs(by_hand(name, -limit)) <= 2e-6 and abs(by_hand(name, limit) - limit) <= 2e-6


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("reach", [3.0, 14.0, 60.0])
def test_a_product_of_the_declared_magnitude_is_opened_as_it_is(name: str, reach: float) -> None:
    """One bit less, and it settles first: a round more."""
    at, protocol = {"input": Range(-reach, reach)}, ALL[name].protocol
    least = opened(protocol, PlainSession().fixed, at)

    def rounds(m: int) -> int:
        return PlanRecorder().record(
            lambda s: protocol(s, s.accept(ghost((9,)), frac=PENDING, width=PENDING + 2 + m).promise(m), at)).rounds

    assert [rounds(m) for m in (least + 1, least, least - 1)] == [1, 1, 2]


@pytest.mark.parametrize("name", ALL)
@given(domains)
@examples(6)
def test_on_any_domain(twin: Run, name: str, domain: tuple[float, float]) -> None:
    x = grid(*domain)
    got = twin(lambda s, x: ALL[name].protocol(s, x, {"input": Range(*domain)}), x, fracs=[PENDING])
    assert np.abs(got - EXACTLY[name](x)).max() <= 1e-4


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("low, high", [(-112.0, 112.0), (-3.0, 112.0), (-112.0, 3.0), (-14.0, 14.0), (-16.0, 16.0)])
def test_fits_reach_their_tolerance(name: str, low: float, high: float) -> None:
    found = getattr(gates, f"{name}_fit")(low, high)
    assert worst(found, EXACTLY[name]) <= found.error <= 1e-4


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("at, message", [
    ({}, "needs the range of 'input'"),
    ({"input": Range(1.0, -1.0)}, "low <= high"),
    ({"input": Range(-math.inf, 1.0)}, "finite"),
])
def test_bad_ranges(name: str, at: dict[str, Range], message: str) -> None:
    s = PlainSession()
    with pytest.raises(RangeError, match=message):
        ALL[name].protocol(s, s.public(1.0, (3,)), at)


@pytest.mark.parametrize("function", ALL.values(), ids=ALL)
def test_every_recipe_has_it(function: Function) -> None:
    s: Any = PlainSession()
    x = grid(-4.0, 4.0, 41)
    np.testing.assert_array_equal(s.values(EXACT.of(function)(s, s.accept(x), {})), EXACTLY[function.name](x))
    assert FAITHFUL.of(function) is function.protocol
    assert not is_declared(function.protocol), "in GeLU's place it would be believed without a trial"
