"""Which recipes suit a checkpoint, by the functions that it was trained for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs_lab import CPU, TEXTS, close, folder_of

from secformer.models.ranges.trained import DESIGNS
from secformer.models.run.local import PlainModel, plain_bert, secure_bert, twin
from secformer.mpc.errors import ModelError, SettingsError
from secformer.protocols.recipes import EXACT, FAITHFUL, RECIPES, SECFORMER


@pytest.mark.parametrize(("entry", "recipe"), [(None, "secformer"), (None, "mpcformer"), ("secformer", "faithful"),
                                               ("secformer", "exact"), ("secformer", "mpcformer")])
def test_functions_that_a_checkpoint_was_not_trained_for(tmp_path: Path, entry: str | None, recipe: str) -> None:
    """2Quad on an ordinary checkpoint, or the reverse, runs only where that is asked for."""
    folder = folder_of(tmp_path, **({} if entry is None else {"secformer": {"recipe": entry}}))
    with pytest.raises(SettingsError, match="untrained_recipe"):
        PlainModel.from_pretrained(folder, recipe=recipe)
    with pytest.raises(SettingsError, match="mean nothing"):
        secure_bert(folder, "cat", recipe=recipe, **CPU)
    assert PlainModel.from_pretrained(folder, recipe=recipe, untrained_recipe=True).recipe is RECIPES[recipe]


@pytest.mark.parametrize("recipe", ["puma", "crypten", replace(FAITHFUL, name="mine", tanh=SECFORMER.tanh)])
def test_stand_ins_run_on_ordinary_checkpoints(tmp_path: Path, recipe: Any) -> None:
    assert PlainModel.from_pretrained(folder_of(tmp_path), recipe=recipe).recipe is not EXACT


def test_a_student_may_change_what_does_not_matter(tmp_path: Path) -> None:
    """Another LayerNorm computes the same function: a student takes it."""
    folder = folder_of(tmp_path, secformer={"recipe": "secformer"})
    mine = replace(SECFORMER, name="mine", layernorm=FAITHFUL.layernorm)
    assert PlainModel.from_pretrained(folder, recipe=mine).recipe is mine


def test_plaintext_of_a_student_is_its_own(tmp_path: Path) -> None:
    """The reference of a 2Quad checkpoint is 2Quad in plaintext, not softmax."""
    folder = folder_of(tmp_path, secformer={"recipe": "secformer", "constants": {"quad_shift": 5.0}})
    own, exact = plain_bert(folder, TEXTS), twin(folder, TEXTS, recipe="exact", untrained_recipe=True)
    close(own, twin(folder, TEXTS), 1e-12)
    assert np.abs(own.last_hidden_state - exact.last_hidden_state).max() > 1e-2
    close(secure_bert(folder, TEXTS, **CPU), own, 1e-2)


def test_a_student_of_other_constants_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, secformer={"recipe": "secformer", "constants": {"quad_shift": 4.0}})
    with pytest.raises(ModelError, match=r"quad_shift.*distil it again"):
        plain_bert(folder, "cat")


def test_designs_are_those_of_the_paper() -> None:
    assert set(DESIGNS) == {"secformer", "mpcformer"}
    with pytest.raises(TypeError):
        DESIGNS["other"] = SECFORMER  # type: ignore[index]
