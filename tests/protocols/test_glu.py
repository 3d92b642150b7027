"""The product of gated layers: its error, its price, values at the ends of their ranges, and values outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples, kernels_named
from protocols_lab import PENDING, Run

from secformer.mpc.errors import RangeError
from secformer.mpc.session import CLIENT, Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World
from secformer.protocols.gates import SILU
from secformer.protocols.glu import GLU, glu
from secformer.protocols.quantities import GATE, INPUT, needed
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import EXACT, FAITHFUL


def site(x: float, gate: float) -> Site:
    return {"input": Range(-0.2, x), "gate": Range(-gate, gate)}


@pytest.mark.parametrize("x, gate", [(0.5, 0.5), (3.0, 7.0), (60.0, 60.0), (100.0, 9000.0), (9000.0, 9000.0)])
@pytest.mark.parametrize("frac", [16, PENDING])
def test_the_product(run: Run, x: float, gate: float, frac: int) -> None:
    """Over both ranges, their ends included: within |x| + |gate| units of the last place, and one of the result."""
    a, b = np.meshgrid(np.linspace(-0.2, x, 33), np.linspace(-gate, gate, 33))
    got = run(lambda s, a, b: glu(s, a, b, site(x, gate)), a, b, fracs=[frac, frac])
    assert np.abs(got - a * b).max() <= (x + gate + 2.0) * 2.0**-16


@given(st.floats(0.01, 1e4), st.floats(0.01, 1e4), st.integers(0, 99))
@examples(20)
def test_any_ranges(twin: Run, x: float, gate: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(-0.2, x, 50), rng.uniform(-gate, gate, 50)
    np.testing.assert_allclose(twin(lambda s, a, b: glu(s, a, b, site(x, gate)), a, b, fracs=[PENDING, PENDING]), a * b)


def test_behind_an_activation(run: Run) -> None:
    """SwiGLU, from products that a linear layer left pending."""
    a, b = np.linspace(-9.0, 9.0, 301), np.linspace(5.0, -4.0, 301)
    at = {"input": Range(-0.3, 9.0), "gate": Range(-4.0, 5.0)}

    def program(s: Any, a: Share, b: Share) -> Share:
        return FAITHFUL.of(GLU)(s, FAITHFUL.of(SILU)(s, a, {"input": Range(-9.0, 9.0)}), b, at)

    got = run(program, a, b, fracs=[PENDING, PENDING])
    assert np.abs(got - a / (1.0 + np.exp(-a)) * b).max() <= 2e-3


def price(x: float, gate: float) -> tuple[int, float]:
    """Rounds, and bytes that a party sends per element, of two pending products' product."""
    def program(s: PlanRecorder, run: bool) -> None:
        pair = [s.mul(s.accept(ghost((10,))), s.accept(ghost((10,)))) for _ in range(2)]
        if run:
            glu(s, *pair, site(x, gate))

    full, inputs = (PlanRecorder().record(program, run) for run in (True, False))
    return full.rounds - inputs.rounds, (full.bytes - inputs.bytes) / 20


def test_the_price() -> None:
    assert price(5.0, 5.0) == price(50.0, 50.0) == (1, 3 + 3)
    assert price(600.0, 15.0) == (1, 4 + 3)


def test_a_linear_layer_takes_it_as_it_is() -> None:
    """No truncation stands between: one round, the bytes of the layer's own opening."""
    def program(s: PlanRecorder, layer: bool) -> None:
        weight = s.open_weight(ghost((4, 3)))
        pair = [s.mul(s.accept(ghost((5, 4))), s.accept(ghost((5, 4)))) for _ in range(2)]
        y = glu(s, *pair, site(5.0, 5.0))
        if layer:
            s.matmul(y, weight)

    full, before = (PlanRecorder().record(program, layer) for layer in (True, False))
    assert (full.rounds - before.rounds, full.bytes - before.bytes) == (1, 2 * 6 * 5 * 4)


@pytest.mark.parametrize("where, text", [("gate", 1), ("input", 0)])
def test_a_guard_marks_values_that_leave_their_range(where: str, text: int) -> None:
    """Far enough out that the product would still fit: it is the factor that is checked."""
    given_ = {"input": np.ones((2, 3)), "gate": np.ones((2, 3))}
    given_[where][text, 1] = 9.0

    def program(s: Session, x: Any) -> Any:
        def pending(v: np.ndarray) -> Share:
            mine = v if getattr(s, "party", None) is None or s.party.rank == 0 else None
            return s.square(s.share(None if mine is None else np.sqrt(mine), 0, shape=v.shape))

        with s.guarding({2: np.arange(2)}, 2) as guard:
            y = glu(s, pending(x["input"]), pending(x["gate"]), site(2.0, 2.0))
        return s.reveal(y, CLIENT), guard.words

    (_, mine), (_, theirs) = World(kernels=kernels_named("numpy")).run(program, given_, given_).results
    for words in (mine + theirs, program(PlainSession(strict=False), given_)[1]):
        assert (np.asarray(words)[:, 0] != 0).tolist() == [i == text for i in range(2)]


def test_a_single_value_far_outside_seldom_passes() -> None:
    """A guard sees a value modulo what its truncation opens. That is many times the range, also for long ranges."""
    texts, rng = 200, np.random.default_rng(0)
    given_ = np.ones((texts, 2))
    given_[:, 0] = 45.0 * rng.uniform(4.0, 60.0, texts)

    def program(s: Session, x: np.ndarray) -> Any:
        mine = x if getattr(s, "party", None) is None or s.party.rank == 0 else None
        with s.guarding({texts: np.arange(texts)}, texts) as guard:
            a, b = (s.mul(s.share(v, 0, shape=x.shape), s.public(np.ones(x.shape)))
                    for v in (mine, None if mine is None else np.ones(x.shape)))
            s.settle(glu(s, a, b, site(45.0, 2.0)))
        return guard.words

    mine, theirs = World(kernels=kernels_named("numpy")).run(program, given_, given_).results
    assert ((mine + theirs)[:, 0] == 0).mean() < 0.05


@pytest.mark.parametrize("at, message", [
    ({}, "needs the range of 'input'"), ({"input": Range(0.0, 1.0)}, "needs the range of 'gate'"),
    ({"input": Range(0.0, 1e6), "gate": Range(-1e6, 1e6)}, "words have 64"),
    ({"input": Range(0.0, 1.0), "gate": Range(-2e4, 2e4)}, "holds values below"),
])
def test_bad_ranges(at: Site, message: str) -> None:
    s = PlainSession()
    x = s.mul(s.public(1.0, (3,)), s.public(1.0, (3,)))
    with pytest.raises(RangeError, match=message):
        glu(s, x, x, at)


def test_every_recipe_has_it() -> None:
    s: Any = PlainSession()
    a, b = np.linspace(-2.0, 2.0, 5), np.linspace(7.0, 9.0, 5)
    np.testing.assert_array_equal(s.values(EXACT.of(GLU)(s, s.accept(a), s.accept(b), {})), a * b)
    assert FAITHFUL.of(GLU) is glu and needed(glu, ()) == (INPUT, GATE)
    assert [q.of(np, a, b) is v for q, v in ((INPUT, a), (GATE, b))] == [True, True]
