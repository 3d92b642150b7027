"""A folder's tensors, verified for their family: every fault is named, and what is unused is noted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoints import config, tensors, write_checkpoint

from secformer.models.families.folder import ModelFolder
from secformer.mpc.errors import ModelError, RangeError
from secformer.mpc.fixed import FixedPoint

KEY = "encoder.layer.0.attention.self.key.weight"


def bad(folder: Path, **changed: np.ndarray | None) -> ModelFolder:
    """A folder where one tensor (KEY) was replaced or, by None, removed."""
    found = tensors(config())
    (value,) = changed.values()
    if value is None:
        del found[KEY]
    else:
        found[KEY] = value
    return ModelFolder(write_checkpoint(folder, weights=found))


def test_missing_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=KEY):
        bad(tmp_path, key=None).verify(FixedPoint())


def test_wrong_shape_names_both(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"{KEY}.*\(12, 11\).*\(12, 12\)"):
        bad(tmp_path, key=np.zeros((12, 11), np.float32)).verify(FixedPoint())


def test_wrong_kind(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"{KEY}.*I64.*F32"):
        bad(tmp_path, key=np.zeros((12, 12), np.int64)).verify(FixedPoint())


@pytest.mark.parametrize("architecture", ["BertForSequenceClassification", "BertForTokenClassification"])
@pytest.mark.parametrize(("said", "explained"), [({}, True), ({"num_labels": 2}, False)])
def test_labels_that_were_assumed_are_said(architecture: str, said: dict[str, int], explained: bool,
                                           tmp_path: Path) -> None:
    write_checkpoint(tmp_path, architecture)  # with three rows
    entries = json.loads((tmp_path / "config.json").read_text("utf-8"))
    kept = {k: v for k, v in entries.items() if k not in ("id2label", "label2id")} | said
    (tmp_path / "config.json").write_text(json.dumps(kept), "utf-8")
    with pytest.raises(ModelError, match=r"'classifier.weight' has shape \(3, 12\).*\(2, 12\)") as caught:
        ModelFolder(tmp_path).verify(FixedPoint())
    assert ("neither id2label nor num_labels" in str(caught.value)) == explained


def test_missing_weights_do_not_invite_to_rename(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not those of the architecture that config\.json names; copy both") as caught:
        bad(tmp_path, key=None).verify(FixedPoint())
    assert "right architecture?" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value: float, tmp_path: Path) -> None:
    weights = np.zeros((12, 12), np.float32)
    weights[3, 4] = value
    with pytest.raises(ModelError, match=rf"{KEY}.*NaN or infinite"):
        bad(tmp_path, key=weights).verify(FixedPoint())


def test_values_that_fixed_point_cannot_hold(tmp_path: Path) -> None:
    weights = np.zeros((12, 12), np.float32)
    weights[0, 0] = -20000.0
    folder = bad(tmp_path, key=weights)
    with pytest.raises(RangeError, match=rf"{KEY}.*20000"):
        folder.verify(FixedPoint())
    folder.verify(FixedPoint(frac=16, magnitude=15))


def test_unused_tensors_are_noted(tmp_path: Path) -> None:
    found = tensors(config()) | {"cls.seq_relationship.weight": np.zeros((2, 12), np.float32),
                                 "embeddings.position_ids": np.arange(32)[None]}
    folder = ModelFolder(write_checkpoint(tmp_path, weights=found))
    folder.verify(FixedPoint())
    folder.verify(FixedPoint())
    assert len(folder.notes) == 1
    assert "1 tensor(s)" in folder.notes[0]
    assert "cls.seq_relationship.weight" in folder.notes[0]


def test_encoder_without_pooler(tmp_path: Path) -> None:
    found = {n: v for n, v in tensors(config()).items() if not n.startswith("pooler")}
    folder = ModelFolder(write_checkpoint(tmp_path, weights=found))
    folder.verify(FixedPoint())
    assert not folder.architecture.spec.pooler
    assert "pooler" in folder.notes[0]


def test_digest_depends_on_values_and_not_on_names_of_files(tmp_path: Path) -> None:
    a = ModelFolder(write_checkpoint(tmp_path / "a", seed=1)).digest
    b = ModelFolder(write_checkpoint(tmp_path / "b", seed=1)).digest
    c = ModelFolder(write_checkpoint(tmp_path / "c", seed=2)).digest
    assert a == b != c
