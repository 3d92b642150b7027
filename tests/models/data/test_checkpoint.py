"""Checkpoints: kinds, names, shards, and every way in which a file can be bad."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoints import config, tensors, write_checkpoint
from safetensors.numpy import save_file

from secformer.models.data.checkpoint import Checkpoint
from secformer.models.data.tensors import NARROW, TABLE, table_width
from secformer.models.families.folder import ModelFolder
from secformer.mpc.errors import ModelError, RangeError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.ring import WORD_BITS

KEY = "encoder.layer.0.attention.self.key.weight"
WORDS = "embeddings.word_embeddings.weight"


def save(folder: Path, found: dict[str, np.ndarray]) -> Checkpoint:
    save_file(found, str(folder / "model.safetensors"))
    return Checkpoint(folder, prefix="bert.")


def save_bfloat16(file: Path, name: str, values: np.ndarray) -> None:
    """A safetensors file, by its published layout: header length, JSON header, bytes."""
    raw = (values.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    header = json.dumps({name: {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [0, len(raw)]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + raw)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64])
def test_kinds(kind: type, tmp_path: Path) -> None:
    values = np.array([[0.5, -1.25, 3.0], [1e-3, 0.0, -7.0]]).astype(kind)
    read = save(tmp_path, {"a": values}).read("a", (2, 3))
    assert read.dtype == np.float64
    np.testing.assert_array_equal(read, values.astype(np.float64))


def test_bfloat16(tmp_path: Path) -> None:
    values = np.array([[1.0, -2.5], [0.15625, 3e38]])
    save_bfloat16(tmp_path / "model.safetensors", "a", values)
    read = Checkpoint(tmp_path, prefix="bert.").read("a", (2, 2))
    np.testing.assert_allclose(read, values, rtol=2.0**-7)
    np.testing.assert_array_equal(read[0], values[0])


def test_rows_read_no_more_than_rows(tmp_path: Path) -> None:
    table = np.arange(12.0, dtype=np.float32).reshape(4, 3)
    checkpoint = save(tmp_path, {"a": table})
    np.testing.assert_array_equal(checkpoint.rows("a", (4, 3), np.array([3, 0, 3])), table[[3, 0, 3]])


@pytest.mark.parametrize("stored", ["pooler.dense.weight", "bert.pooler.dense.weight"])
def test_prefix(stored: str, tmp_path: Path) -> None:
    checkpoint = save(tmp_path, {stored: np.ones((2, 2), np.float32)})
    assert "pooler.dense.weight" in checkpoint
    assert checkpoint.read("pooler.dense.weight", (2, 2)).sum() == 4.0
    assert checkpoint.unused() == []


def test_old_layernorm_names(tmp_path: Path) -> None:
    found = {"bert.embeddings.LayerNorm.gamma": np.full(3, 2.0, np.float32),
             "bert.embeddings.LayerNorm.beta": np.zeros(3, np.float32)}
    checkpoint = save(tmp_path, found)
    assert checkpoint.read("embeddings.LayerNorm.weight", (3,)).tolist() == [2.0] * 3
    assert checkpoint.read("embeddings.LayerNorm.bias", (3,)).tolist() == [0.0] * 3


def shard(folder: Path) -> None:
    """Splits a folder's model.safetensors in two with an index."""
    found = tensors(config())
    names = sorted(found)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, some in parts.items():
        save_file({n: found[n] for n in some}, str(folder / file))
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {n: f for f, some in parts.items() for n in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")


def test_sharded_index_holds_the_same_model(tmp_path: Path) -> None:
    whole, parted = write_checkpoint(tmp_path / "whole"), write_checkpoint(tmp_path / "parted")
    shard(parted)
    assert ModelFolder(whole).digest == ModelFolder(parted).digest


def test_sharded_index_with_a_missing_part(tmp_path: Path) -> None:
    shard(write_checkpoint(tmp_path))
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="00002-of-00002"):
        ModelFolder(tmp_path)


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": "../b.safetensors"}}'])
def test_bad_index(index: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(index, "utf-8")
    with pytest.raises(ModelError, match="index"):
        ModelFolder(tmp_path)


def test_index_that_promises_more_than_its_files_hold(tmp_path: Path) -> None:
    shard(write_checkpoint(tmp_path))
    file = tmp_path / "model.safetensors.index.json"
    index = json.loads(file.read_text("utf-8"))
    index["weight_map"]["ghost"] = "model-00001-of-00002.safetensors"
    file.write_text(json.dumps(index), "utf-8")
    with pytest.raises(ModelError, match="ghost"):
        ModelFolder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 64, b"\x10\x00\x00\x00\x00\x00\x00\x00{not json......"])
def test_corrupt_file(content: bytes, tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        ModelFolder(tmp_path)


def test_truncated_file(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        ModelFolder(tmp_path)


def test_no_weights_and_pickled_weights(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="neither"):
        ModelFolder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="convert it to safetensors"):
        ModelFolder(tmp_path)


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


def test_layout_folds_the_query_scale_and_fuses(tmp_path: Path) -> None:
    folder = ModelFolder(write_checkpoint(tmp_path))
    found, layout = tensors(config()), folder.architecture.layout(WORD_BITS)
    names = [f"encoder.layer.1.attention.self.{n}" for n in ("query", "key", "value")]
    scale = [0.5, 1.0, 1.0]  # 1/sqrt(head_dim = 4)
    weight = np.concatenate([found[f"{n}.weight"].T.astype(float) * f for n, f in zip(names, scale, strict=True)], 1)
    bias = np.concatenate([found[f"{n}.bias"].astype(float) * f for n, f in zip(names, scale, strict=True)])
    np.testing.assert_array_equal(layout["layer.1.qkv.weight"].build(folder.checkpoint), weight)
    np.testing.assert_array_equal(layout["layer.1.qkv.bias"].build(folder.checkpoint), bias)
    assert layout["layer.1.qkv.weight"].shape == (12, 36)
    assert layout[TABLE].shape == (folder.architecture.inputs.words + 2, 12)


@pytest.mark.parametrize(("top", "width"), [(1.0, 24), (60.0, 24), (63.99, 32), (1000.0, 32), (16000.0, 32)])
def test_table_width_holds_word_plus_segment(top: float, width: int, tmp_path: Path) -> None:
    found = tensors(config())
    found[WORDS][5, 5] = top
    folder = ModelFolder(write_checkpoint(tmp_path, weights=found))
    chosen = table_width(folder.architecture.tables()[TABLE], folder.checkpoint, 16, 2.0**14)
    reach = top + np.abs(found["embeddings.token_type_embeddings.weight"]).max()
    assert reach < 2.0 ** (chosen - 18)
    assert chosen == width in NARROW
