"""Exact functions on tensors."""

from __future__ import annotations

import numpy as np
import pytest

from secformer.models.families.activations import FURTHER
from secformer.mpc.sessions.plain import PlainSession
from secformer.protocols.recipes import RECIPES, Function

torch = pytest.importorskip("torch")
from secformer.models.distill.exact import EXACT_TORCH  # noqa: E402
from secformer.models.distill.torch_session import TorchSession  # noqa: E402


def test_exact_functions_measure_nothing() -> None:
    assert not any(EXACT_TORCH.needs.values()) and EXACT_TORCH.faithful and EXACT_TORCH.ordinary
    assert all(any(r.needs.values()) for r in RECIPES.values())


@pytest.mark.parametrize("function", FURTHER.values(), ids=FURTHER)
def test_a_teachers_further_activations_are_exact(function: Function) -> None:
    """Not a fit, which would need ranges: values far out are right, too."""
    x = np.linspace(-300.0, 300.0, 601)
    s, t = PlainSession(), TorchSession(dtype=torch.float64)
    found = EXACT_TORCH.of(function)(t, t.accept(torch.from_numpy(x)), {}).data.numpy()
    np.testing.assert_allclose(found, s.values(function.exact(s, s.accept(x), {})), rtol=1e-12, atol=1e-12)
