"""GLUE's metrics (Wang et al., 2019), in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from secformer.models.distill.tasks import Task

Metric = Callable[[np.ndarray, np.ndarray], float]


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """The fraction of labels that are predicted."""
    return float((predicted == labels).mean())


def f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Harmonic mean of precision and recall of label 1. It is 0 where neither side has a 1."""
    hits = float(((predicted == 1) & (labels == 1)).sum())
    said = float((predicted == 1).sum() + (labels == 1).sum())
    return 2.0 * hits / said if said else 0.0


def matthews(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Matthews' correlation of two classes. It is 0 where a side is constant."""
    return pearson(predicted.astype(np.float64), labels.astype(np.float64))


def pearson(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's correlation. It is 0 where a side is constant."""
    x, y = predicted - predicted.mean(), labels - labels.mean()
    norm = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / norm if norm > 0.0 else 0.0


def spearman(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Spearman's correlation: Pearson's correlation of the ranks, where ties get their mean rank."""
    return pearson(_ranks(predicted), _ranks(labels))


def _ranks(x: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2.0)[place])


METRICS: Mapping[str, Metric] = MappingProxyType({
    "accuracy": accuracy, "f1": f1, "matthews": matthews, "pearson": pearson, "spearman": spearman,
})


def predictions(logits: np.ndarray, task: Task) -> np.ndarray:
    """The label ids (B,) that logits (B, L) predict; for a regression, the numbers."""
    return np.asarray(logits[:, 0] if task.regression else logits.argmax(-1))


def scores(logits: np.ndarray, labels: np.ndarray, task: Task) -> dict[str, float]:
    """The task's metrics of logits (B, L) against labels (B,), by name."""
    found = predictions(logits, task)
    return {name: METRICS[name](found, labels) for name in task.metrics}
