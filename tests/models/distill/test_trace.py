"""Training runs at the ranges of each batch, widened and made coarse; attention maps are those of the protocols."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_lab import DEV

from secformer.models.data.batch import Batch
from secformer.models.families.folder import ModelFolder
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.quantities import QUAD_SUM, SCORE, needs
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import SECFORMER

torch = pytest.importorskip("torch")
from secformer.models.distill.losses import inner_loss  # noqa: E402
from secformer.models.distill.model import load  # noqa: E402
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


def test_maps_are_what_the_protocol_makes_of_a_unit_matrix(teacher: Path) -> None:
    folder = ModelFolder(teacher)
    spec = folder.architecture.spec
    batch, s = Batch(tuple(folder.tokenizer.rows(DEV.texts))), TorchSession(dtype=torch.float64)
    trace = Trace(maps=True)
    assert batch.padded
    logits = load(folder)(s, batch, SECFORMER, trace)
    np.testing.assert_allclose(logits, load(folder)(s, batch, SECFORMER), atol=1e-12)  # looking changes nothing
    assert len(trace.hidden_states) == spec.layers + 1 and len(trace.attention_maps) == spec.layers
    for map_ in trace.attention_maps:
        assert map_.shape == (batch.size, spec.heads, batch.longest, batch.longest)
        np.testing.assert_allclose(map_.sum(-1), 1.0, atol=1e-3)
        assert float(map_.detach().permute(0, 3, 1, 2)[~torch.from_numpy(batch.mask)].abs().max()) == 0.0
    same = Trace(maps=True)
    load(folder)(s, batch, SECFORMER, same)
    assert float(inner_loss(same, trace, batch)) == 0.0
