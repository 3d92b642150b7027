"""How a stage of training is optimised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secformer.models.data.batch import Row
from secformer.mpc.errors import SettingsError

POOL = 32  # batches whose texts are sorted by length together


@dataclass(frozen=True)
class Stage:
    """One run of the optimiser. Together with the data, a stage determines every step. Raises SettingsError.

    name      also the name of the stage's file in the output's training folder
    rate      highest learning rate; it rises linearly over the first steps, then falls linearly to 0
    epochs    passes over the texts
    batch     texts per step
    decay     weight decay of matrices
    warmup    fraction of the steps over which the rate rises
    dropout   fraction of values that dropout sets to 0
    checks    how many times per epoch the dev metric is taken
    patience  the number of checks without a better metric after which to stop; 0: never stop early
    seed      of the order of the texts, and of dropout
    words     whether the word table learns too
    longest   the number of tokens that a text is cut to
    half      whether matrix products are in bfloat16
    """

    name: str
    rate: float
    epochs: float
    batch: int = 32
    decay: float = 0.01
    warmup: float = 0.1
    dropout: float = 0.0
    checks: int = 1
    patience: int = 0
    seed: int = 0
    words: bool = False
    longest: int = 128
    half: bool = False

    def __post_init__(self) -> None:
        for key in ("rate", "epochs", "batch", "checks", "longest"):
            if not 0 < getattr(self, key) < math.inf:
                raise SettingsError(f"{key} must be positive and finite, got {getattr(self, key)!r}")

    def steps(self, texts: int) -> int:
        return max(1, round(self.epochs * self.steps_an_epoch(texts)))

    def steps_an_epoch(self, texts: int) -> int:
        return -(-texts // self.batch)

    def rate_at(self, step: int, steps: int) -> float:
        rising = max(1.0, self.warmup * steps)
        return self.rate * min((step + 1) / rising, (steps - step) / max(1.0, steps - rising))


def order(rows: Sequence[Row], stage: Stage, epoch: int) -> list[np.ndarray]:
    """The batches of an epoch, as places in `rows`: random, with texts of similar length together.

    The order depends on seed and epoch only, so that interrupted training can be resumed.
    """
    rng = np.random.default_rng([stage.seed, epoch])
    lengths = np.array([len(r) for r in rows])
    places = rng.permutation(len(rows))
    pools = [places[i : i + POOL * stage.batch] for i in range(0, len(rows), POOL * stage.batch)]
    places = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    found = [places[i : i + stage.batch] for i in range(0, len(rows), stage.batch)]
    return [found[i] for i in rng.permutation(len(found))]
