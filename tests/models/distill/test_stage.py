"""Stages: steps, rates, and the order of the texts."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_lab import TEACH, TRAIN

from secformer.models.data.batch import Row
from secformer.models.distill.stage import POOL, Stage, order
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
    for change in ({"rate": 0.0}, {"epochs": -1}, {"batch": 0}, {"checks": 0}, {"epochs": float("inf")},
                   {"rate": float("nan")}, {"rate": float("inf")}):
        with pytest.raises(SettingsError, match=f"{next(iter(change))} must be positive"):
            replace(TEACH, **change)


def row(length: int) -> Row:
    return Row(np.zeros(length, np.int64), np.zeros(length, np.int64), np.ones(length, np.int64))


@given(st.integers(1, 300), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_rates_rise_then_fall_to_nothing(steps: int, warmup: float) -> None:
    stage = Stage("x", rate=0.5, epochs=1, warmup=warmup)
    rates, rising = np.array([stage.rate_at(step, steps) for step in range(steps)]), max(1.0, warmup * steps)
    top = int(rates.argmax())
    assert (rates > 0.0).all()
    assert rates.max() <= 0.5 * (1.0 + 1.0 / max(1.0, steps - rising)), "where steps do not divide, by one step's fall"
    assert (np.diff(rates[: top + 1]) > 0.0).all() and (np.diff(rates[top:]) <= 0.0).all()
    assert top <= rising
    assert stage.rate_at(steps, steps) == 0.0


def test_the_highest_rate_is_reached_where_warming_up_ends() -> None:
    stage = Stage("x", rate=0.4, epochs=1, warmup=0.1)
    assert [stage.rate_at(step, 20) for step in (0, 1, 2, 11, 20)] == pytest.approx([0.2, 0.4, 0.4, 0.2, 0.0])
    assert replace(stage, warmup=0.0).rate_at(0, 20) == 0.4


@pytest.mark.parametrize(("texts", "batch", "epochs", "an_epoch", "steps"), [
    (1, 32, 1.0, 1, 1), (32, 32, 1.0, 1, 1), (33, 32, 1.0, 2, 2), (96, 8, 8.0, 12, 96), (96, 8, 0.5, 12, 6),
    (8, 8, 0.1, 1, 1),
])
def test_steps(texts: int, batch: int, epochs: float, an_epoch: int, steps: int) -> None:
    stage = Stage("x", rate=1.0, epochs=epochs, batch=batch)
    assert (stage.steps_an_epoch(texts), stage.steps(texts)) == (an_epoch, steps)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 8), st.integers(0, 3))
def test_every_text_is_in_one_batch_of_an_epoch(lengths: list[int], batch: int, epoch: int) -> None:
    stage = Stage("x", rate=1.0, epochs=1, batch=batch)
    found = order([row(n) for n in lengths], stage, epoch)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
    assert len(found) == stage.steps_an_epoch(len(lengths)) and all(len(places) <= batch for places in found)


def test_texts_of_similar_length_are_together() -> None:
    """Within a pool no two batches overlap in length; batches come in no order of length."""
    lengths = np.random.default_rng(0).integers(1, 1000, 8 * POOL)
    found = order([row(n) for n in lengths], Stage("x", rate=1.0, epochs=1, batch=8), 0)
    spans = sorted((int(lengths[places].min()), int(lengths[places].max())) for places in found)
    assert all(high <= low for (_, high), (low, _) in pairwise(spans))
    assert [int(lengths[places].min()) for places in found] != [low for low, _ in spans]


def test_texts_of_one_pool_differ_by_epoch() -> None:
    """Beyond one pool, which texts are sorted together is drawn anew."""
    rows, stage = [row(1 + i % 7) for i in range(3 * POOL)], Stage("x", rate=1.0, epochs=2, batch=2)
    first, second = ({frozenset(places.tolist()) for places in order(rows, stage, epoch)} for epoch in (0, 1))
    assert len(first & second) < len(first) / 2
