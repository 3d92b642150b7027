"""Labelled sentences that tiny models learn in seconds, and the stages in which they do. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from secformer.models.distill.stage import Stage
from secformer.models.distill.tasks import Examples, Task

TASK = Task("own", ("text",), "label", ("bad", "good"), ("accuracy", "f1"), ids=False)
NUMBERS = Task("own", ("text",), "label", ("score",), ("pearson", "spearman"))
TEACH = Stage("labels", rate=1e-2, epochs=8, batch=8, seed=3, words=True)
INNER, LOGITS = Stage("inner", rate=2e-3, epochs=6, batch=8), Stage("logits", rate=2e-3, epochs=3, batch=8)


def examples(count: int, seed: int, task: Task = TASK) -> Examples:
    """Sentences with one telling word; the label, or a number, is that word's."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(count):
        words = [str(w) for w in rng.choice(["the", "cat", "sat", "on", "film", "was", "it"], rng.integers(1, 6))]
        label = int(rng.integers(2))
        words.insert(int(rng.integers(len(words) + 1)), ("bad", "good")[label])
        texts.append(" ".join(words))
        labels.append(label)
    return Examples(texts, np.array(labels, np.float64 if task.regression else np.int64))


TRAIN, DEV = examples(96, 1), examples(40, 2)
quiet: Callable[[str], None] = lambda text: None  # noqa: E731


class Stop(Exception):
    """Somebody pulled the plug."""


def interrupted_after(checks: int) -> Callable[[str], None]:
    """Progress that pulls the plug at the check after so many."""
    seen = 0

    def tell(text: str) -> None:
        nonlocal seen
        seen += "loss" in text
        if seen > checks:
            raise Stop

    return tell
