"""Stages: steps, rates, and the order of the texts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from training_lab import TEACH, TRAIN

from secformer.models.distill.stage import order
from secformer.models.families.folder import ModelFolder
from secformer.mpc.errors import SettingsError


def test_batches_are_a_function_of_seed_and_epoch(encoder: ModelFolder) -> None:
    rows = encoder.tokenizer.rows(TRAIN.texts)
    first = order(rows, TEACH, 0)
    assert sorted(np.concatenate(first).tolist()) == list(range(len(rows)))
    for again, same in ((order(rows, TEACH, 0), True), (order(rows, TEACH, 1), False),
                        (order(rows, replace(TEACH, seed=4), 0), False)):
        assert (np.concatenate(again).tolist() == np.concatenate(first).tolist()) is same


def test_stages_are_checked() -> None:
    for change in ({"rate": 0.0}, {"epochs": -1}, {"batch": 0}, {"checks": 0}):
        with pytest.raises(SettingsError, match=f"{next(iter(change))} must be positive"):
            replace(TEACH, **change)
