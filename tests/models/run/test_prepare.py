"""What a run goes by: recipe, profile, results; refused before anything is shared where they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs_lab import ANY, CPU, TEXTS, close, folder_of

from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import FILE, measure
from secformer.models.run.local import PlainModel, SecureModel, plain_bert, secure_bert
from secformer.mpc.errors import ModelError, RangeError
from secformer.protocols.recipes import FAITHFUL, SECFORMER


def test_the_checkpoint_names_its_recipe(tmp_path: Path) -> None:
    model = PlainModel.from_pretrained(folder_of(tmp_path, secformer={"recipe": "secformer"}))
    assert model.recipe is SECFORMER
    other = PlainModel.from_pretrained(tmp_path, recipe="faithful", untrained_recipe=True)
    assert other.recipe is FAITHFUL


def test_profile_of_other_weights_is_refused(encoder: Path, tmp_path: Path) -> None:
    path = folder_of(tmp_path, seed=8)
    with pytest.raises(ModelError, match="other weights"):
        secure_bert(path, "cat", profile=encoder / FILE, **CPU)
    with pytest.raises(ModelError, match="cannot read the range profile"):
        secure_bert(path, "cat", profile=tmp_path / "none.json", **CPU)


def test_profile_of_another_recipe(encoder: Path) -> None:
    with pytest.raises(ModelError, match="'exact' functions"):
        secure_bert(encoder, "cat", profile=encoder / FILE, recipe="secformer", **ANY)
    out = secure_bert(encoder, "cat", recipe="secformer", **ANY)
    assert out.profile_source == "measured at load from built-in texts"


def test_given_profiles(encoder: Path) -> None:
    profile = measure(ModelFolder(encoder), TEXTS, margin=2.0)
    out = secure_bert(encoder, TEXTS, profile=profile, **CPU)
    close(out, plain_bert(encoder, TEXTS), 2e-2)
    assert out.profile_source == "given"


def test_a_format_that_a_recipe_does_not_fit_is_refused_before_anything_is_shared(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shared(*_: Any) -> None:
        raise AssertionError("weights were shared")

    monkeypatch.setattr(SecureModel, "provision", shared)
    with pytest.raises(RangeError, match=r"layer\.0: softmax|layernorm|gelu"):
        SecureModel.from_pretrained(encoder, frac=24, magnitude=14, **CPU)
