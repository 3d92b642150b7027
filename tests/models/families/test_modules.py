"""Folders of sentence-transformers: every spelling that is read, and every variant that is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint
from sentence_lab import OWNER, WAYS, put, write_sentence

from secformer.models.families.folder import ModelFolder
from secformer.models.families.modules import Dense, Modules, read_modules
from secformer.mpc.errors import ModelError


def change(file: Path, **facts: Any) -> None:
    put(file, {k: v for k, v in (json.loads(file.read_text("utf-8")) | facts).items() if v is not ...})


def listed(folder: Path, *kinds: str) -> Path:
    """Replaces modules.json: a module of each kind, in 0_Kind, 1_Kind, ...; the first in the folder itself."""
    types = [kind if "." in kind else f"{OWNER}.{kind}" for kind in kinds]
    put(folder / "modules.json", [{"type": kind, "path": f"{i}_{kind.rpartition('.')[2]}" if i else ""}
                                  for i, kind in enumerate(types)])
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sentence(tmp_path, ["mean"], dense=[(5, "activation.Tanh", True)])


def test_what_is_read(folder: Path) -> None:
    change(folder / "tokenizer_config.json", model_max_length=30)
    dense = (Dense("2_Dense", 12, 5, True, "tanh"),)
    assert read_modules(folder) == Modules(("mean",), dense, True, 30)
    listed(folder, "Transformer", "Pooling", "Dense", "Dropout")
    put(folder / "sentence_roberta_config.json", {"max_seq_length": 16})
    put(folder / "config_sentence_transformers.json", {"prompts": {"a": "b "}, "default_prompt_name": "a"})
    assert read_modules(folder) == Modules(("mean",), dense, False, 16, "b ")


def test_newer_names_of_classes(folder: Path) -> None:
    listed(folder, *(f"sentence_transformers.{where}" for where in (
        "base.modules.transformer.Transformer", "sentence_transformer.modules.pooling.Pooling",
        "base.modules.dense.Dense", "base.modules.normalize.Normalize")))
    found = read_modules(folder)
    assert found is not None and (found.pooling, found.unit, len(found.dense)) == (("mean",), True, 1)


@pytest.mark.parametrize(("stated", "found"), [
    ({"pooling_mode": "max"}, ("max",)),
    ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls")),  # in the order that is stated
    ({f"pooling_mode_{key}": key == "lasttoken" for key in ("mean_tokens", "lasttoken")}, ("lasttoken",)),
    ({}, ("mean",)),
    ({"pooling_mode_mean_tokens": False}, ("mean",)),
    ({"pooling_mode_cls_token": True}, ("cls",)),
])
def test_ways_of_pooling(stated: dict[str, Any], found: tuple[str, ...], folder: Path) -> None:
    put(folder / "1_Pooling/config.json", stated)
    modules = read_modules(folder)
    assert modules is not None and modules.pooling == found


def test_folders_that_have_none(tmp_path: Path) -> None:
    """A checkpoint, and one that lists the Transformer alone: its own head is what counts."""
    assert read_modules(write_checkpoint(tmp_path)) is None
    assert read_modules(listed(tmp_path, "Transformer")) is None
    assert ModelFolder(tmp_path).architecture.results.keys() == {"last_hidden_state", "pooler_output"}


@pytest.mark.parametrize(("kinds", "words"), [
    (["Pooling"], "first module must be a Transformer"),
    ([], "first module must be a Transformer"),
    (["Transformer", "Pooling", "LSTM"], "models.LSTM.*is not run here"),
    (["Transformer", "WordWeights", "Pooling"], "WordWeights"),
    (["Transformer", "my_package.Pooling"], "my_package.Pooling"),
    (["sentence_transformers.sparse_encoder.models.MLMTransformer"], "MLMTransformer"),
    (["Transformer", "Normalize"], "followed by Pooling.*got Normalize"),
    (["Transformer", "Pooling", "Normalize", "Dense"], "got Pooling, Normalize, Dense"),
    (["Transformer", "Pooling", "Pooling"], "got Pooling, Pooling"),
])
def test_modules_that_are_not_run(kinds: list[str], words: str, folder: Path) -> None:
    listed(folder, *kinds)
    with pytest.raises(ModelError, match=rf"modules\.json.*{words}"):
        ModelFolder(folder)


@pytest.mark.parametrize(("file", "facts", "words"), [
    ("1_Pooling", {"pooling_mode": "median"}, "pooling must be among cls, max, .*got median"),
    ("1_Pooling", {"pooling_mode": ["mean", 3]}, "got mean, 3"),
    ("1_Pooling", {"pooling_mode_attention": True}, "pooling_mode_attention"),
    ("2_Dense", {"activation_function": "torch.nn.modules.activation.Sigmoid"}, "activation_function must be one of"),
    ("2_Dense", {"activation_function": "my.Tanh"}, "got 'my.Tanh'"),
    ("2_Dense", {"activation_function": None}, "got 'None'"),
    ("2_Dense", {"module_input_name": "token_embeddings"}, "module_input_name must be 'sentence_embedding'"),
    ("2_Dense", {"use_residual": True}, "use_residual must be False"),
    ("2_Dense", {"in_features": "12"}, "in_features and out_features must be positive"),
    ("2_Dense", {"out_features": True}, "positive"),
])
def test_variants_that_are_refused_by_their_key(file: str, facts: dict[str, Any], words: str, folder: Path) -> None:
    change(folder / file / "config.json", **facts)
    with pytest.raises(ModelError, match=rf"{file}.*{words}"):
        ModelFolder(folder)


@pytest.mark.parametrize("facts", [{"module_input_name": "sentence_embedding", "module_output_name": None},
                                   {"activation_function": ..., "bias": ...}])
def test_defaults_of_a_dense_layer(facts: dict[str, Any], folder: Path) -> None:
    change(folder / "2_Dense/config.json", **facts)
    modules = read_modules(folder)
    assert modules is not None and modules.dense == (Dense("2_Dense", 12, 5, True, "tanh"),)


@pytest.mark.parametrize(("name", "facts", "words"), [
    ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length must be a positive integer, got 0"),
    ("sentence_bert_config.json", {"max_seq_length": "many"}, "got 'many'"),
    ("sentence_bert_config.json", [], "must hold a JSON object"),
    ("config_sentence_transformers.json", {"default_prompt_name": "query"}, "'query', but prompts has no text"),
    ("config_sentence_transformers.json", {"default_prompt_name": "q", "prompts": ["q"]}, "has no text"),
    ("config_sentence_transformers.json", {"truncate_dim": 64}, "truncate_dim must be null, got 64"),
    ("modules.json", {}, "must hold a JSON list"),
    ("modules.json", [3], "the module 3 is not run here"),
    ("modules.json", [{"type": f"{OWNER}.Transformer", "path": "0_Transformer"}], "whose path is ''"),
    ("modules.json", [{"type": f"{OWNER}.Transformer", "path": ""}, {"type": f"{OWNER}.Pooling", "path": "../x"}],
     "must be a folder beside the file, got '../x'"),
])
def test_bad_files(name: str, facts: Any, words: str, folder: Path) -> None:
    put(folder / name, facts)
    with pytest.raises(ModelError, match=rf"{name.replace('.', '[.]')}.*{words}"):
        ModelFolder(folder)


def test_missing_and_unreadable_parts(folder: Path) -> None:
    (folder / "2_Dense/model.safetensors").rename(folder / "2_Dense/pytorch_model.bin")
    with pytest.raises(ModelError, match=r"2_Dense has neither.*Convert them, in a shell:\n.*2_Dense"):
        ModelFolder(folder)
    (folder / "1_Pooling/config.json").write_text("{", "utf-8")
    with pytest.raises(ModelError, match=r"cannot read .*1_Pooling"):
        ModelFolder(folder)
    (folder / "1_Pooling/config.json").unlink()
    with pytest.raises(ModelError, match=r"cannot read .*1_Pooling.*with the folders of its modules"):
        ModelFolder(folder)


def test_wrong_shapes_of_a_dense_layer(folder: Path) -> None:
    from secformer.mpc.fixed import FixedPoint

    change(folder / "2_Dense/config.json", out_features=6)
    with pytest.raises(ModelError, match=r"'2_Dense/linear.weight' has shape \(5, 12\)"):
        ModelFolder(folder).verify(FixedPoint())


def test_facts_are_plain(folder: Path) -> None:
    from dataclasses import asdict

    modules = read_modules(folder)
    assert modules is not None and Modules.of(json.loads(json.dumps(asdict(modules)))) == modules
    assert set(WAYS) == {"cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"}
