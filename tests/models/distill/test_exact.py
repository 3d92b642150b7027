"""Exact functions on tensors."""

from __future__ import annotations

import pytest

from secformer.protocols.recipes import RECIPES

torch = pytest.importorskip("torch")
from secformer.models.distill.exact import EXACT_TORCH  # noqa: E402


def test_exact_functions_measure_nothing() -> None:
    assert not any(EXACT_TORCH.needs.values()) and EXACT_TORCH.faithful and EXACT_TORCH.ordinary
    assert all(any(r.needs.values()) for r in RECIPES.values())
