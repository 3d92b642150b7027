"""Checkpoints: kinds, names, shards, and every way in which a file can be bad."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from checkpoints import config, tensors, write_checkpoint
from safetensors.numpy import save_file

from secformer.models.data.checkpoint import Checkpoint, conversion
from secformer.models.families.folder import ModelFolder
from secformer.mpc.errors import ModelError
from secformer.mpc.fixed import FixedPoint


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
    stored = Checkpoint(tmp_path, prefix="bert.").stored("a", (2, 2))
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, read)


def test_a_tensor_as_it_is_stored(tmp_path: Path) -> None:
    values = np.array([[0.5, -1.25, 3.0]], np.float16)
    checkpoint = save(tmp_path, {"bert.a": values})
    assert checkpoint.shape("a") == (1, 3) and checkpoint.stored("a", (1, 3)).dtype == np.float16
    np.testing.assert_array_equal(checkpoint.stored("a", (1, 3)), values)
    with pytest.raises(ModelError, match=r"tensor 'a' has shape \(1, 3\)"):
        checkpoint.stored("a", (3, 1))
    with pytest.raises(ModelError, match="lacks tensor 'b'"):
        checkpoint.shape("b")


def test_one_file_of_another_name(tmp_path: Path) -> None:
    save_file({"a": np.ones(2, np.float32)}, str(tmp_path / "tables.safetensors"))
    assert "a" in Checkpoint(tmp_path, file="tables.safetensors")
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        Checkpoint(tmp_path, file="others.safetensors")


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


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": "../b.safetensors"}}',
                                   '{"weight_map": {"a": 3}}', "[" * 100_000])
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
    with pytest.raises(ModelError, match="PyTorch files, which can run code") as caught:
        ModelFolder(tmp_path)
    assert str(caught.value).splitlines()[1].strip() == conversion(tmp_path)


@pytest.mark.parametrize("shards", [1, 2])
def test_the_conversion_that_is_named_works(shards: int, tmp_path: Path) -> None:
    """The very line, in a shell, on a folder whose name needs quotes; tied tensors and float16 included."""
    torch = pytest.importorskip("torch")
    folder = write_checkpoint(tmp_path / "it's a model")
    values = {n: torch.from_numpy(v) for n, v in tensors(config()).items()}
    values["pooler.dense.weight"] = values["pooler.dense.weight"].half()
    values["cls.predictions.decoder.weight"] = values["embeddings.word_embeddings.weight"]
    names = sorted(values)
    for i in range(shards):
        file = "pytorch_model.bin" if shards == 1 else f"pytorch_model-0000{i + 1}-of-0000{shards}.bin"
        torch.save({n: values[n] for n in names[i::shards]}, folder / file)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        ModelFolder(folder)
    line = str(caught.value).splitlines()[1]
    python = f"{shlex.quote(sys.executable)} -c "
    subprocess.run(["sh", "-c", line.replace("python -c ", python)], check=True, capture_output=True)
    after = ModelFolder(folder)
    after.verify(FixedPoint())
    name = "embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(after.checkpoint.read(name, (39, 12)), tensors(config())[name])
    assert after.checkpoint.read("pooler.dense.bias", (12,)).shape == (12,)


def test_the_conversion_runs_no_code(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    file = tmp_path / "pytorch_model.bin"
    payload = b"cos\nsystem\n(S'echo > " + str(tmp_path / "ran").encode() + b"'\ntR."
    with zipfile.ZipFile(file, "w") as archive:  # as torch.save lays its files out
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3")
    line = conversion(tmp_path).replace("python -c ", f"{shlex.quote(sys.executable)} -c ")
    assert subprocess.run(["sh", "-c", line], capture_output=True).returncode != 0
    assert not (tmp_path / "ran").exists() and not (tmp_path / "model.safetensors").exists()


def test_a_folder_inside_is_included(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, {"a": np.ones(2, np.float32)})
    (tmp_path / "2_Dense").mkdir()
    with pytest.raises(ModelError, match="2_Dense has neither"):
        checkpoint.include("2_Dense")
    save_file({"linear.bias": np.arange(3.0)}, str(tmp_path / "2_Dense" / "model.safetensors"))
    checkpoint.include("2_Dense")
    np.testing.assert_array_equal(checkpoint.read("2_Dense/linear.bias", (3,)), np.arange(3.0))
    assert checkpoint.unused() == ["a"]


def test_tensors_that_are_computed(tmp_path: Path) -> None:
    """Read as stored ones, in float64; they count as used, and take no part in files."""
    checkpoint = save(tmp_path, {"a": np.ones(2, np.float32)})
    values = np.arange(6.0).reshape(2, 3).T / 3.0  # not contiguous
    checkpoint.hold({"prefix.0.keys": values})
    np.testing.assert_array_equal(checkpoint.read("prefix.0.keys", (3, 2)), values)
    np.testing.assert_array_equal(checkpoint.rows("prefix.0.keys", (3, 2), np.array([2, 0])), values[[2, 0]])
    assert checkpoint.computed("prefix.0.keys") and not checkpoint.computed("a")
    assert checkpoint.unused() == ["a"] and "prefix.0.keys" in checkpoint
    with pytest.raises(ModelError, match="has shape"):
        checkpoint.read("prefix.0.keys", (2, 3))
    checkpoint.hold({"bad": np.array([np.nan])})
    with pytest.raises(ModelError, match="'bad' holds 1 value"):
        checkpoint.read("bad", (1,))


def test_a_signalling_nan_is_refused_like_any_other(tmp_path: Path) -> None:
    """Found by fuzzing: NumPy warned of the cast first."""
    values = np.array([1.0, 2.0], np.float32)
    values.view(np.uint32)[1] = 0x7F800001
    save_file({"a": values}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"1 value.s. that are NaN or infinite"):
        Checkpoint(tmp_path).read("a", (2,))
