"""Rotary positions: against the formula, on shares and in the twin; lengths, bits, price, bad shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples
from protocols_lab import PENDING, Run

from secformer.mpc.errors import RangeError, ShapeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.shares import Share
from secformer.protocols.quantities import INPUT, needed
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import EXACT, FAITHFUL
from secformer.protocols.rope import ROPE, Turning, angles, rope

THETA = Turning(10000.0)


def site(reach: float) -> Site:
    return {"input": Range(-reach, reach)}


def turned(x: np.ndarray, positions: np.ndarray, turning: Turning) -> np.ndarray:
    """Each pair (a, b) as the complex number a + ib, times e^(it)."""
    half = x.shape[-1] // 2
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles(positions, 2 * half, turning))[:, None]
    return np.concatenate([z.real, z.imag], axis=-1)


@pytest.mark.parametrize("n, d, theta", [(1, 2, 10000.0), (9, 6, 1000.0), (33, 64, 160000.0)])
@pytest.mark.parametrize("reach", [0.01, 9.0, 900.0])
def test_the_formula(run: Run, n: int, d: int, theta: float, reach: float) -> None:
    """Up to the last places of what it is given, and of the result."""
    rng = np.random.default_rng(0)
    x, positions = rng.uniform(-reach, reach, (n, 3, d)), np.arange(n)[::-1].copy()
    got = run(lambda s, x: rope(s, x, positions, Turning(theta), site(reach)), x, fracs=[PENDING])
    assert np.abs(got - turned(x, positions, Turning(theta))).max() <= 4.0 * 2.0**-16 + 2.0 * reach * 2.0**-20


@pytest.mark.parametrize("reach, error", [(45.0 / 1.25, 2.0**-25), (1000.0, 2.0**-18), (9000.0, 2.0**-17)])
def test_the_error_of_factors(twin: Run, reach: float, error: float) -> None:
    """In the twin no other is left, since it rounds nothing else."""
    rng = np.random.default_rng(1)
    x, positions = rng.uniform(-reach, reach, (40, 2, 8)), np.arange(40)

    def program(s: Any, x: Share) -> Share:
        wide = s.matmul(x, s.public(np.eye(8)[None].repeat(40, 0)), magnitude=s.fixed.whole)
        return rope(s, wide, positions, THETA, site(reach))

    got = np.abs(twin(program, x, fracs=[16]) - turned(x, positions, THETA))
    pairs = np.abs(x[..., :4]) + np.abs(x[..., 4:])
    assert 0.0 < (got / np.concatenate([pairs, pairs], axis=-1)).max() <= error


@given(st.integers(1, 20), st.integers(1, 8), st.floats(2.0, 1e6), st.integers(0, 99))
@examples(20)
def test_scores_depend_on_distances_alone(twin: Run, n: int, half: int, theta: float, seed: int) -> None:
    """Moving all positions leaves every query's product with every key as it was."""
    rng = np.random.default_rng(seed)
    q, k = rng.normal(size=(2, n, 1, 2 * half))

    def scores(first: int) -> np.ndarray:
        def program(s: Any, x: Share) -> Share:
            return rope(s, x, first + np.arange(n), Turning(theta), site(6.0))

        return np.asarray(twin(program, q, fracs=[16])[:, 0] @ twin(program, k, fracs=[16])[:, 0].T)

    np.testing.assert_allclose(scores(0), scores(7), atol=1e-4)


def test_angles_are_those_of_single_precision() -> None:
    torch = pytest.importorskip("torch")
    for theta, size in ((10000.0, 64), (160000.0, 64), (1000.0, 6)):
        powers = 1.0 / (theta ** (torch.arange(0, size, 2, dtype=torch.float) / size))
        wanted = (torch.arange(2000)[:, None].float() * powers).double().numpy()
        found = angles(np.arange(2000), size, Turning(theta))
        np.testing.assert_allclose(found, wanted, rtol=2.5e-7, atol=0.0)
        assert (found == wanted).mean() > 0.8


@pytest.mark.parametrize("entries", [
    {"rope_type": "linear", "factor": 2.5},
    {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 8192},
    {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.5, "high_freq_factor": 1.75,
     "original_max_position_embeddings": 40},
], ids=str)
@pytest.mark.parametrize("size", [64, 6])
def test_frequencies_of_longer_texts(entries: dict[str, Any], size: int) -> None:
    pytest.importorskip("torch")
    import transformers
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.LlamaConfig(head_dim=size, rope_parameters={"rope_theta": 500.0, **entries})
    wanted, factor = ROPE_INIT_FUNCTIONS[entries["rope_type"]](config, "cpu")
    band = ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    found = Turning(500.0, entries["factor"], tuple(entries[key] for key in band) if len(entries) > 2 else None)
    assert factor == 1.0
    np.testing.assert_allclose(found.frequencies(size), wanted.numpy(), rtol=6e-7)
    slower = found.frequencies(size) < Turning(500.0).frequencies(size)
    assert slower.any() == (size == 64 or entries.get("original_max_position_embeddings") != 8192)


def cost(fixed: FixedPoint, magnitude: int | None) -> tuple[int, int]:
    """Rounds and bytes of a product, rotated and settled, beyond those of the product settled."""
    def program(s: PlanRecorder, rotated: bool) -> None:
        x = s.matmul(s.accept(ghost((5, 4))), s.open_weight(ghost((4, 12))), magnitude=magnitude)
        x = x.promise(10).reshape(5, 2, 6)
        s.settle(rope(s, x, np.arange(5), THETA, site(500.0)) if rotated else x)

    with_it, without = (PlanRecorder(fixed).record(program, rotated) for rotated in (True, False))
    return with_it.rounds - without.rounds, with_it.bytes - without.bytes


def test_the_price() -> None:
    fixed = FixedPoint()
    assert cost(fixed, fixed.whole) == (0, 0)
    assert cost(fixed, None) == (1, 2 * 4 * 5 * 12)
    fine = FixedPoint(20, 14)  # words have no room for the factors' bits
    assert cost(fine, fine.whole)[0] == 1


@pytest.mark.parametrize("shape, positions", [((3, 2, 5), 3), ((3, 2, 4), 4), ((3, 4), 3), ((1, 3, 2, 4), 1)])
def test_bad_shapes(shape: tuple[int, ...], positions: int) -> None:
    s: Any = PlainSession()
    with pytest.raises(ShapeError, match="an even D"):
        rope(s, s.accept(np.zeros(shape)), np.arange(positions), THETA, site(1.0))
    with pytest.raises(ShapeError, match="an even D"):
        ROPE.exact(s, s.accept(np.zeros(shape)), np.arange(positions), THETA, {})


def test_the_promise_is_that_of_the_range() -> None:
    """sqrt 2 times the range, with its air, and checked when it is settled."""
    s: Any = PlainSession()
    with s.guarding({2: np.arange(2)}, 2):
        x = s.matmul(s.accept(np.full((2, 1, 4), 2.0)), s.accept(np.full((2, 4, 4), 0.5)), magnitude=30)
        y = rope(s, x, np.arange(2), THETA, site(4.0))
        assert y.interval.high == pytest.approx(np.sqrt(2.0) * 5.0)
        assert 2.0 ** (y.magnitude + 2) >= 32.0 * 2.0 * y.interval.high  # so much opens that few values look right
    assert rope(s, x, np.arange(2), THETA, site(4.0)).magnitude == 3


def test_every_recipe_has_it() -> None:
    s: Any = PlainSession()
    x, positions = np.random.default_rng(2).normal(size=(5, 2, 6)), np.arange(5)
    found = s.values(EXACT.of(ROPE)(s, s.accept(x), positions, THETA, {}))
    np.testing.assert_allclose(found, turned(x, positions, THETA), atol=1e-12)
    assert FAITHFUL.of(ROPE) is rope and needed(rope, ()) == (INPUT,)


@pytest.mark.parametrize("at, message", [({}, "needs the range of 'input'"), (site(1e12), "words have 64|has 64")])
def test_bad_ranges(at: Site, message: str) -> None:
    s: Any = PlainSession()
    x = s.matmul(s.accept(np.ones((2, 1, 4))), s.accept(np.ones((2, 4, 4))), magnitude=30)
    with pytest.raises(RangeError, match=message):
        s.settle(rope(s, x, np.arange(2), THETA, at))


@pytest.mark.parametrize("most, certain", [(2.0, True), (2.0**20, False)])
def test_what_no_text_exceeds_is_not_checked(most: float, certain: bool) -> None:
    """Where words hold it beside the factors' bits; else the range is checked."""
    s: Any = PlainSession()
    with s.guarding({2: np.arange(2)}, 2):
        x = s.matmul(s.accept(np.full((2, 1, 4), 2.0)), s.accept(np.full((2, 4, 4), 0.5)), magnitude=30)
        y = rope(s, x, np.arange(2), THETA, site(4.0) | {"most": Range(most, most)})
        assert (y.interval is None) == certain
        assert not certain or y.magnitude == 2, "sqrt 2 times 2"
