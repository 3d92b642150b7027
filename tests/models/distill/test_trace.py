"""Training runs at the ranges of each batch: what protocols declare, widened and made coarse."""

from __future__ import annotations

import numpy as np
import pytest

from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.quantities import QUAD_SUM, SCORE, needs
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import RECIPES, SECFORMER

torch = pytest.importorskip("torch")
from secformer.models.distill.exact import EXACT_TORCH  # noqa: E402
from secformer.models.distill.torch_session import TorchSession  # noqa: E402
from secformer.models.distill.trace import Spot, Trace, ranges, traced  # noqa: E402


def test_ranges_are_widened_and_coarse() -> None:
    """Exactly as a margin of 1.25 widens them, then outward: to whole numbers, and to powers of two for sums."""
    scores = torch.tensor([[[[0.5, -1.5, 0.5], [1.0, 1.0, 1.0], [-3.0, 0.0, -3.0]]]])
    real = torch.tensor([[[[True, True, False]]]])
    found = ranges(Spot("layer.0.softmax"), (SCORE, QUAD_SUM), scores, torch.zeros((1, 1, 3, 2)), real)
    assert isinstance(found, Spot) and found.name == "layer.0.softmax"
    # scores in [-3, 1] widen to [-3.75, 1.75]; sums 42.5, 72 and 29 to [19.3, 108]
    assert found == {"score": Range(-4.0, 2.0), "quad_sum": Range(16.0, 128.0)}


def test_functions_run_at_the_ranges_that_they_declare() -> None:
    seen: list[Site] = []

    @needs(SCORE)
    def softmax(s: Session, scores: Share, values: Share, mask: np.ndarray, at: Site) -> Share:
        seen.append(at)
        return s.matmul(scores, values)

    recipe, trace, s = traced(SECFORMER, Trace(), ()), Trace(maps=True), TorchSession(dtype=torch.float64)
    assert recipe.needs == SECFORMER.needs and recipe.trained_for == SECFORMER.trained_for
    x, v = s.accept(np.linspace(-2.0, 2.0, 9).reshape(1, 1, 3, 3)), s.accept(np.full((1, 1, 3, 2), 50.0))
    mine = traced(type(SECFORMER)("mine", SECFORMER.gelu, softmax, SECFORMER.layernorm, SECFORMER.tanh), trace, ())
    mine.softmax(s, x, v, np.ones((1, 3), dtype=bool), trace.site("layer.0.softmax"))
    assert seen == [{"score": Range(-3.0, 3.0)}]
    np.testing.assert_array_equal(trace.attention_maps[0].numpy(), x.data.numpy())


def test_exact_functions_measure_nothing() -> None:
    assert not any(EXACT_TORCH.needs.values()) and EXACT_TORCH.faithful and EXACT_TORCH.ordinary
    assert all(any(r.needs.values()) for r in RECIPES.values())
