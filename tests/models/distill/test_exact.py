"""Exact functions on tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from secformer.models.families.activations import FURTHER
from secformer.mpc.sessions.plain import PlainSession
from secformer.protocols.recipes import EXACT, RECIPES, Function

torch = pytest.importorskip("torch")
from secformer.models.distill.exact import EXACT_TORCH  # noqa: E402
from secformer.models.distill.torch_session import TorchSession  # noqa: E402


def test_exact_functions_measure_nothing() -> None:
    assert not any(EXACT_TORCH.needs.values()) and EXACT_TORCH.faithful and EXACT_TORCH.ordinary
    assert all(any(r.needs.values()) for r in RECIPES.values())


def test_masks_of_rows_and_norms_without_beta() -> None:
    rng = np.random.default_rng(0)
    scores, values, mask = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 5, 2)), np.tri(4, 5, 1, dtype=bool)
    x, gamma = rng.normal(size=(4, 6)), rng.normal(size=6)
    s, t = PlainSession(strict=False), TorchSession(dtype=torch.float64)

    def both(protocol: Any, exact: Any, *operands: np.ndarray, rest: tuple[Any, ...]) -> None:
        found = protocol(t, *(t.accept(torch.from_numpy(v)) for v in operands), *rest, {}).data.numpy()
        np.testing.assert_allclose(found, s.values(exact(s, *map(s.accept, operands), *rest, {})), atol=1e-12)

    both(EXACT_TORCH.softmax, EXACT.softmax, scores, values, rest=(mask[None, None],))
    both(EXACT_TORCH.softmax, EXACT.softmax, scores, values, rest=(np.array([[True] * 5, [False] * 4 + [True]]),))
    both(EXACT_TORCH.layernorm, EXACT.layernorm, x, gamma, rest=(0.0, 1e-5))


@pytest.mark.parametrize("function", FURTHER.values(), ids=FURTHER)
def test_a_teachers_further_activations_are_exact(function: Function) -> None:
    """Not a fit, which would need ranges: values far out are right, too."""
    x = np.linspace(-300.0, 300.0, 601)
    s, t = PlainSession(), TorchSession(dtype=torch.float64)
    found = EXACT_TORCH.of(function)(t, t.accept(torch.from_numpy(x)), {}).data.numpy()
    np.testing.assert_allclose(found, s.values(function.exact(s, s.accept(x), {})), rtol=1e-12, atol=1e-12)
