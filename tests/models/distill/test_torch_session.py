"""The torch session computes what the twin computes, through the same protocol code, and its gradients are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from secformer.mpc.errors import RangeError, SettingsError, ShapeError
from secformer.mpc.functions import Series
from secformer.mpc.session import Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.protocols.gelu import CUT
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import EXACT, RECIPES, Recipe

torch = pytest.importorskip("torch")
from secformer.models.distill.exact import EXACT_TORCH  # noqa: E402
from secformer.models.distill.torch_session import BLOCK, TorchSession  # noqa: E402

Program = Callable[..., Share]
AT: Site = {"input": Range(-4.0, 4.0), "gain": Range(2.0, 2.0), "variance": Range(0.3, 3.0),
            "value": Range(-4.0, 4.0), "score": Range(-4.0, 4.0),
            "spread": Range(-8.0, 0.0), "exp_sum": Range(1.0, 5.0), "quad_sum": Range(5.0, 400.0),
            "relu_sum": Range(0.0, 20.0)}
MASK = np.array([[True, True, True, True, True], [True, True, True, False, False]])
ON_SHARES = [r for r in RECIPES.values() if r is not EXACT]


def double() -> TorchSession:
    return TorchSession(dtype=torch.float64)


def values(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, scale, shape)


def programs(recipe: Recipe) -> dict[str, tuple[Program, list[np.ndarray]]]:
    """A recipe's functions with operands inside AT."""
    def softmax(s: Session, x: Share, v: Share) -> Share:
        return recipe.softmax(s, x, v, MASK, AT)

    def layernorm(s: Session, x: Share, g: Share, b: Share) -> Share:
        return recipe.layernorm(s, x, g, b, 1e-12, AT)

    return {
        "gelu": (lambda s, x: recipe.gelu(s, x, AT), [np.linspace(-3.9, 3.9, 41)]),
        "tanh": (lambda s, x: recipe.tanh(s, x, AT), [np.linspace(-3.9, 3.9, 41)]),
        "softmax": (softmax, [np.clip(values(2, 1, 5, 5), -3.0, 3.0), values(2, 1, 5, 2, seed=1)]),
        "layernorm": (layernorm, [values(3, 8, seed=2), 1.0 + values(8, seed=3, scale=0.1), values(8, seed=4)]),
    }


@pytest.mark.parametrize("recipe", ON_SHARES, ids=lambda r: r.name)
@pytest.mark.parametrize("name", ["gelu", "tanh", "softmax", "layernorm"])
def test_equals_the_twin(recipe: Recipe, name: str) -> None:
    program, operands = programs(recipe)[name]
    plain, s = PlainSession(strict=False), double()
    expected = program(plain, *map(plain.accept, operands))
    found = program(s, *map(s.accept, operands))
    assert found.data.dtype == torch.float64
    np.testing.assert_allclose(found.data.numpy(), expected.data, rtol=1e-9, atol=1e-10)
    facts = ("shape", "frac", "width", "magnitude")
    assert [getattr(found, f) for f in facts] == [getattr(expected, f) for f in facts]


def test_thresholds_that_rows_reach() -> None:
    def program(s: Session, x: Share) -> list[Share]:
        return s.reached(x, [-1.0, 0.5, 7.0], low=-8.0, high=8.0, precision=3)

    plain, s, x = PlainSession(), double(), values(2, 3, 5)
    x[0, 0, 2] = x[0, 0].max() + 1.0
    for found, expected in zip(program(s, s.accept(torch.tensor(x, requires_grad=True))),
                               program(plain, plain.accept(x)), strict=True):
        assert found.shape == (2, 3, 1) and not found.data.requires_grad  # a constant, as in less
        np.testing.assert_array_equal(found.data.numpy(), expected.data)


@pytest.mark.parametrize("recipe", ON_SHARES, ids=lambda r: r.name)
@pytest.mark.parametrize("name", ["gelu", "tanh", "softmax", "layernorm"])
def test_gradients(recipe: Recipe, name: str) -> None:
    """Against differences of the function itself, at points off the places where it jumps."""
    program, operands = programs(recipe)[name]
    if name in ("gelu", "tanh"):
        operands = [np.array([-3.7, -3.1, -2.2, -1.3, -0.4, 0.3, 1.1, 2.2, 3.2, 3.7])]  # off every recipe's thresholds
        assert np.abs(np.abs(operands[0]) - CUT * np.sqrt(2.0)).min() > 0.1
    inputs = [torch.tensor(v, requires_grad=True) for v in operands]

    def function(*tensors: Any) -> Any:
        s = double()
        return program(s, *map(s.accept, tensors)).data

    assert torch.autograd.gradcheck(function, inputs, eps=1e-6, atol=1e-5, rtol=1e-4)


def test_products_of_pending_narrow_and_promised_operands() -> None:
    """What a product drops and lifts is nothing to numbers: their values, facts and gradients stay."""
    def program(s: Session, x: Share, y: Share) -> Share:
        p, q = s.mul_many([(x, y), (y, y)], magnitude=6)
        narrow = Share(s, y.data, y.frac, 24, 5)
        a, b, c = s.mul_many([(p, q), (p.promise(3), p), (narrow, q)], magnitude=(8, 9, 10))
        return s.concatenate([a, b, c, s.matmul(s.square(x, whole=True), y.transpose(1, 0))], axis=1)

    x, y = values(3, 4, scale=0.6), values(3, 4, seed=1, scale=0.6)
    plain, s = PlainSession(), double()
    expected, found = (program(each, each.accept(x), each.accept(y)) for each in (plain, s))
    by_hand = np.concatenate([x * y**3, (x * y) ** 2, y**3, x**2 @ y.T], axis=1)
    np.testing.assert_allclose(expected.data, by_hand, rtol=1e-12)
    np.testing.assert_allclose(found.data.numpy(), by_hand, rtol=1e-12)
    facts = ("shape", "frac", "width", "magnitude")
    assert [getattr(found, f) for f in facts] == [getattr(expected, f) for f in facts]
    inputs = [torch.tensor(v, requires_grad=True) for v in (x, y)]
    assert torch.autograd.gradcheck(lambda *t: program(s, *map(s.accept, t)).data, inputs)


def test_series_of_many_harmonics_in_blocks() -> None:
    rng = np.random.default_rng(5)
    f = Series(4, tuple(rng.normal(size=31)), tuple(rng.normal(size=31)), linear=0.5)
    x = rng.uniform(-8.0, 8.0, BLOCK + 77)
    s = double()
    (found,) = s.series(s.accept(x), [f])
    np.testing.assert_allclose(found.data.numpy(), f(x), atol=1e-10)
    leaf = torch.tensor(x, requires_grad=True)
    s.series(s.accept(leaf), [f])[0].data.sum().backward()
    step = 1e-6
    np.testing.assert_allclose(leaf.grad.numpy(), (f(x + step) - f(x - step)) / (2 * step), atol=1e-5)


def test_comparisons_stop_gradients_and_select_lets_them_through() -> None:
    s = double()
    x = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    (bit,) = s.less(s.accept(x), [1.0], bound=4.0)
    assert bit.data.tolist() == [1.0, 1.0, 0.0] and not bit.data.requires_grad
    s.select(bit, s.accept(x) * 3, s.accept(x)).data.sum().backward()
    assert x.grad.tolist() == [3.0, 3.0, 1.0]
    np.testing.assert_array_equal(s.relu(s.accept([-1.0, 2.0]), bound=4.0).data.numpy(), [0.0, 2.0])
    np.testing.assert_array_equal(s.maximum(s.accept([[1.0, 3.0, 2.0]]), -1, bound=4.0).data.numpy(), [[3.0]])


def test_products_in_bfloat16_come_back_in_float32() -> None:
    s = TorchSession(products=torch.bfloat16)
    x = s.accept(np.full((2, 3), 1.0 + 2.0**-10))
    y = s.matmul(x, s.open_weight(np.eye(3)))
    assert y.data.dtype == torch.float32
    np.testing.assert_array_equal(y.data.numpy(), np.ones((2, 3)))  # bfloat16 has 8 bits
    assert s.mul(x, x).data[0, 0] > 1.001  # element-wise products keep float32


def test_misuse() -> None:
    s = double()
    with pytest.raises(RangeError, match="holds every value"):
        s.share(None, 0, shape=(2,))
    with pytest.raises(ShapeError, match="another session"):
        s.mul(s.public(1.0), double().public(1.0))
    with pytest.raises(ShapeError, match="matrix"):
        s.open_weight(np.zeros(3))
    twin = PlainSession()
    with pytest.raises(SettingsError, match="on values of type Tensor only; this is a PlainSession"):
        EXACT_TORCH.gelu(twin, twin.accept([1.0]), AT)
    with pytest.raises(SettingsError, match="in the float64 twin only; this is a TorchSession"):
        EXACT.gelu(s, s.accept([1.0]), AT)
