"""GLUE's metrics against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from secformer.models.distill.scores import accuracy, f1, matthews, pearson, scores, spearman
from secformer.models.distill.tasks import task_named

bits = st.integers(1, 40).flatmap(lambda n: st.tuples(arrays(np.int64, n, elements=st.integers(0, 1)),
                                                      arrays(np.int64, n, elements=st.integers(0, 1))))


def counts(p: np.ndarray, y: np.ndarray) -> tuple[int, int, int, int]:
    return tuple(int(((p == a) & (y == b)).sum()) for a, b in ((1, 1), (1, 0), (0, 1), (0, 0)))  # type: ignore


@given(bits)
def test_two_classes(pair: tuple[np.ndarray, np.ndarray]) -> None:
    p, y = pair
    tp, fp, fn, tn = counts(p, y)
    assert accuracy(p, y) == (tp + tn) / len(p)
    assert f1(p, y) == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0)
    under = float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert matthews(p, y) == pytest.approx((tp * tn - fp * fn) / under**0.5 if under else 0.0, abs=1e-12)


def test_correlations() -> None:
    x, y = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([5.0, 6.0, 7.0, 8.0, 7.0])
    assert pearson(x, y) == pytest.approx(0.8320502943378437)
    assert spearman(x, y) == pytest.approx(0.8207826816681233)  # a tie shares rank 3.5
    assert spearman(x, np.exp(x)) == pytest.approx(1.0) and pearson(x, np.exp(x)) < 0.95
    assert pearson(x, np.ones(5)) == spearman(np.ones(5), x) == 0.0


def test_scores_of_logits() -> None:
    logits = np.array([[0.1, 0.2], [3.0, 1.0], [0.0, -1.0]])
    assert scores(logits, np.array([1, 0, 1]), task_named("mrpc")) == {
        "f1": pytest.approx(2 / 3), "accuracy": pytest.approx(2 / 3)}
    found = scores(np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 2.0, 3.0]), task_named("stsb"))
    assert found["spearman"] == pytest.approx(1.0) and 0.98 < found["pearson"] < 0.99
