"""Texts with fillers: in every family they have the answers that they have without, and no guard sees a difference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_checkpoint
from families_lab import LENGTHS, lengthy, tiny
from runs_lab import TEXTS, folder_of
from sentence_lab import WAYS, write_sentence
from toy_family import Toy

from secformer.models.data.batch import Row, Steps, batches
from secformer.models.families.architecture import Architecture
from secformer.models.families.bert import Bert
from secformer.models.families.folder import ModelFolder
from secformer.models.families.program import GUARD
from secformer.models.families.table import FAMILIES
from secformer.models.ranges.profile import measure
from secformer.models.run.gather import gather
from secformer.models.run.local import PlainModel, reference
from secformer.models.run.progress import silent

EXACT = {"rtol": 0.0, "atol": 1e-9}
SHORT = 17  # tokens of one more text: most of a filled one are fillers


def agree(model: PlainModel, rows: Sequence[Row], steps: Steps) -> None:
    """Every result of every text, with fillers and without; fillers have their text's first token's. Nothing may be
    marked."""
    results = model.architecture.results
    plain, _ = gather(rows, 4096, results, [model._ask], silent)
    filled, _ = gather(rows, 4096, results, [model._ask], silent, steps=steps)
    filling = [batch for _, batch in batches(rows, 4096, 1, steps)]
    assert sum(int((batch.lengths - batch.own_lengths).sum()) for batch in filling) > 0
    for batch in filling:
        first, filler = np.repeat(batch.starts, batch.lengths), ~batch.own[batch.present]
        for name, values in model._ask(batch, silent)[0].items():
            if results.get(name):
                np.testing.assert_allclose(values[filler], values[first[filler]], err_msg=name, **EXACT)
    for row, mine, theirs in zip(rows, filled, plain, strict=True):
        assert mine.keys() == theirs.keys() >= set(model.names)
        for name, values in mine.items():
            if name == GUARD:
                assert not values.any() and not theirs[name].any(), model.architecture.model_type
            else:
                assert not results[name] or len(values) == len(row)
                np.testing.assert_allclose(values, theirs[name], err_msg=name, **EXACT)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_answers_are_those_without(family: type[Architecture], tmp_path: Path) -> None:
    """Also where a text has gaps, or begins with tokens that nothing attends to: with exact functions, and with those
    of the engine, which the guard checks."""
    _, folder = tiny(tmp_path, family)
    assert folder.architecture.fillable
    rows = folder.tokenizer.rows(lengthy(folder.architecture.inputs))
    rows = [*rows, rows[0].cut(SHORT)]
    steps = Steps(16, folder.architecture.inputs.longest)
    assert [steps.length(len(row)) for row in rows] == [32] * (len(LENGTHS) + 1)
    agree(reference(folder), rows, steps)
    agree(PlainModel.from_pretrained(tmp_path, profile=measure(folder, lengthy(folder.architecture.inputs))), rows,
          steps)


@pytest.mark.parametrize("architecture", Bert.classes)
def test_results_of_every_head(architecture: str, tmp_path: Path) -> None:
    folder = ModelFolder(folder_of(tmp_path, architecture, seed=3))
    agree(reference(folder), folder.tokenizer.rows(TEXTS), Steps(8, 32))


def test_every_way_of_pooling(tmp_path: Path) -> None:
    folder = ModelFolder(write_sentence(tmp_path, WAYS, unit=False))
    assert folder.architecture.fillable
    agree(reference(folder), folder.tokenizer.rows(TEXTS), Steps(16, 32))


def test_families_say_that_they_may_be_filled() -> None:
    """Those that were written before there were fillers do not."""
    assert Toy.fillable is Architecture.fillable


def test_no_text_is_filled_beyond_the_longest(tmp_path: Path) -> None:
    folder = ModelFolder(write_checkpoint(tmp_path, max_position_embeddings=13))
    agree(reference(folder), folder.tokenizer.rows(TEXTS), Steps(8, folder.architecture.inputs.longest))
