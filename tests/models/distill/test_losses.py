"""Losses against their formulas in NumPy; padding has no say, and a layer learns the one that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from training_lab import NUMBERS, TASK

from secformer.models.data.batch import Batch, Row

torch = pytest.importorskip("torch")
from secformer.models.distill.losses import inner_loss, label_loss, logits_loss  # noqa: E402
from secformer.models.distill.trace import Trace  # noqa: E402

B, H, C, T = 3, 2, 5, 4
BATCH = Batch(tuple(Row(np.zeros(n, np.int64), np.zeros(n, np.int64), np.ones(n, np.int64)) for n in (4, 1, 2)))


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def log_softmax(x: np.ndarray) -> np.ndarray:
    return np.asarray(x - np.log(np.exp(x).sum(-1, keepdims=True)))


def trace(layers: int, seed: int) -> Trace:
    """Hidden states of an embedding and of layers, of different scales, and their maps."""
    rng = np.random.default_rng(seed)
    states = [torch.tensor((1.0 + i) ** 2 * rng.normal(size=(BATCH.tokens, C))) for i in range(layers + 1)]
    return Trace(True, states, [torch.tensor(rng.random((B, H, T, T))) for _ in range(layers)])


def test_labels() -> None:
    logits, labels = values(4, 2), np.array([0, 1, 1, 0])
    found = float(label_loss(torch.tensor(logits), torch.tensor(labels), TASK))
    assert found == pytest.approx(-log_softmax(logits)[np.arange(4), labels].mean())
    numbers = values(4, 1, seed=1)
    found = float(label_loss(torch.tensor(numbers), torch.tensor(labels.astype(float)), NUMBERS))
    assert found == pytest.approx(((numbers[:, 0] - labels) ** 2).mean())


def test_logits_of_a_teacher() -> None:
    mine, theirs = values(4, 2), values(4, 2, seed=1)
    found = float(logits_loss(torch.tensor(mine), torch.tensor(theirs), TASK))
    assert found == pytest.approx(-(np.exp(log_softmax(theirs)) * log_softmax(mine)).sum(-1).mean())
    a, b = values(4, 1), values(4, 1, seed=1)
    assert float(logits_loss(torch.tensor(a), torch.tensor(b), NUMBERS)) == pytest.approx(((a - b) ** 2).mean())


def formula(mine: Trace, theirs: Trace, states: list[int], maps: list[int]) -> float:
    """With the teacher's layers named: relative errors of hidden states, squared distances of tokens' rows of maps."""
    errors = [((a - theirs.hidden_states[i]) ** 2).mean() / theirs.hidden_states[i].var()
              for a, i in zip(mine.hidden_states, states, strict=True)]
    rows = [((a - theirs.attention_maps[i]) ** 2).sum(-1).numpy()[b, :, :n].mean(axis=0)
            for a, i in zip(mine.attention_maps, maps, strict=True) for b, n in enumerate((4, 1, 2))]
    distances = np.concatenate([r.ravel() for r in rows]).reshape(len(maps), BATCH.tokens)
    return float(np.mean([float(e) for e in errors]) + distances.mean())


def test_inner_states_and_maps() -> None:
    mine, theirs = trace(2, 1), trace(2, 2)
    assert float(inner_loss(mine, theirs, BATCH)) == pytest.approx(formula(mine, theirs, [0, 1, 2], [0, 1]))
    assert float(inner_loss(theirs, theirs, BATCH)) == 0.0


@pytest.mark.parametrize(("layers", "states", "maps"), [(2, [0, 3, 6], [2, 5]), (3, [0, 2, 4, 6], [1, 3, 5]),
                                                        (1, [0, 6], [5])])
def test_a_layer_learns_the_last_of_those_that_it_stands_for(layers: int, states: list[int], maps: list[int]) -> None:
    mine, theirs = trace(layers, 1), trace(6, 2)
    assert float(inner_loss(mine, theirs, BATCH)) == pytest.approx(formula(mine, theirs, states, maps))


def test_padding_has_no_say() -> None:
    mine, theirs = trace(2, 1), trace(2, 2)
    before = float(inner_loss(mine, theirs, BATCH))
    for map_ in mine.attention_maps:
        map_[1, :, 1:] = 1e6  # the second text has one token, the third two
        map_[2, :, 2:] = -1e6
    assert float(inner_loss(mine, theirs, BATCH)) == before


def test_layers_of_different_scale_weigh_the_same() -> None:
    mine, theirs = trace(1, 1), trace(1, 2)
    before = float(inner_loss(mine, theirs, BATCH))
    for each in (mine, theirs):
        each.hidden_states[1] = 1000.0 * each.hidden_states[1]
    assert float(inner_loss(mine, theirs, BATCH)) == pytest.approx(before)
