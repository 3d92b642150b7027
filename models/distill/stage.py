"""How a stage of training is optimised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secformer.models.data.batch import Row
from secformer.mpc.errors import SettingsError

POOL = 32  # batches whose texts are sorted by length together


@dataclass(frozen=True)
class Stage:
    """One run of the optimiser. Frozen and complete: with the data it determines every step.

    name      of its file in the output's training folder
    rate      highest learning rate; it rises over the first `warmup` of all steps, then falls to 0, linearly
    epochs    passes over the texts
    batch     texts a step
    checks    times an epoch that the dev metric is taken
    patience  checks without a better metric after which to stop; 0: never
    words     the word table learns too
    longest   tokens that a text is cut to
    half      matrix products in bfloat16
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
            if not getattr(self, key) > 0:
                raise SettingsError(f"{key} must be positive, got {getattr(self, key)!r}")

    def steps(self, texts: int) -> int:
        return max(1, round(self.epochs * self.steps_an_epoch(texts)))

    def steps_an_epoch(self, texts: int) -> int:
        return -(-texts // self.batch)

    def rate_at(self, step: int, steps: int) -> float:
        rising = max(1.0, self.warmup * steps)
        return self.rate * min((step + 1) / rising, (steps - step) / max(1.0, steps - rising))


def order(rows: Sequence[Row], stage: Stage, epoch: int) -> list[np.ndarray]:
    """The batches of an epoch, as places: random, texts of similar length together. A function of seed and epoch, so
    that interrupted training goes on where it was."""
    rng = np.random.default_rng([stage.seed, epoch])
    lengths = np.array([len(r) for r in rows])
    places = rng.permutation(len(rows))
    pools = [places[i : i + POOL * stage.batch] for i in range(0, len(rows), POOL * stage.batch)]
    places = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    found = [places[i : i + stage.batch] for i in range(0, len(rows), stage.batch)]
    return [found[i] for i in rng.permutation(len(found))]
