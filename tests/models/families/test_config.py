"""Configs: what is read, and what is refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import config

from secformer.models.families.architecture import Architecture
from secformer.models.families.bert import Bert
from secformer.models.families.config import read_config
from secformer.models.families.roberta import Roberta
from secformer.models.families.table import FAMILIES, architecture_of
from secformer.mpc.errors import ModelError


def write(folder: Path, architecture: str = "BertModel", **changes: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config(architecture, **changes)), "utf-8")
    return folder


def read(folder: Path) -> Architecture:
    return architecture_of(read_config(folder))


def test_reads_sizes_labels_and_recipe(tmp_path: Path) -> None:
    spec = read(write(tmp_path, "BertForSequenceClassification", labels=2, secformer={"recipe": "secformer"})).spec
    assert (spec.hidden, spec.layers, spec.heads, spec.intermediate) == (12, 2, 3, 20)
    assert spec.labels == ("label 0", "label 1")
    assert spec.problem == "single"
    assert spec.recipe == "secformer"
    assert spec.pooler


@pytest.mark.parametrize("architecture", Bert.classes)
def test_supported_architectures(architecture: str, tmp_path: Path) -> None:
    assert read(write(tmp_path, architecture)).spec.architecture == architecture


@pytest.mark.parametrize(("changes", "problem"), [
    ({"labels": 1}, "regression"),
    ({"labels": 3}, "single"),
    ({"labels": 3, "problem_type": "multi_label_classification"}, "multi"),
    ({"labels": 3, "problem_type": "single_label_classification"}, "single"),
    ({"labels": 2, "problem_type": "regression"}, "regression"),
])
def test_problem(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    assert read(write(tmp_path, "BertForSequenceClassification", **changes)).spec.problem == problem


@pytest.mark.parametrize("stated", ["", "multi_label", "Regression"])
def test_an_unknown_problem_is_refused(stated: str, tmp_path: Path) -> None:
    allowed = "'regression', 'single_label_classification', 'multi_label_classification'"
    with pytest.raises(ModelError, match=rf"problem_type must be one of {allowed}, got '{stated}'"):
        read(write(tmp_path, "BertForSequenceClassification", problem_type=stated))


CLASS = "torch.nn.modules.linear.Identity"


@pytest.mark.parametrize(("changes", "score"), [
    ({}, "sigmoid"),
    ({"sentence_transformers": {"version": "4.1.0"}}, "sigmoid"),
    ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}, "sigmoid"),
    ({"sentence_transformers": {"activation_fn": CLASS}}, "identity"),
    ({"sbert_ce_default_activation_function": CLASS}, "identity"),
    ({"sbert_ce_default_activation_function": None}, "sigmoid"),
    ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
      "sbert_ce_default_activation_function": CLASS}, "sigmoid"),
    ({"labels": 3, "sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"}, "sigmoid"),
])
def test_what_makes_a_score(changes: dict[str, Any], score: str, tmp_path: Path) -> None:
    folder = write(tmp_path, "BertForSequenceClassification", **{"labels": 1} | changes)
    assert read(folder).spec.score == score


@pytest.mark.parametrize(("changes", "key"), [
    ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"}, "sbert_ce_default_activation_fun"),
    ({"sentence_transformers": {"activation_fn": "my.Own"}}, r"sentence_transformers\.activation_fn"),
    ({"sentence_transformers": {"activation_fn": 3}}, r"sentence_transformers\.activation_fn"),
])
def test_another_activation_of_a_score_is_refused(changes: dict[str, Any], key: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"{key}.* must be a class named Sigmoid or Identity"):
        read(write(tmp_path, "BertForSequenceClassification", labels=1, **changes))


@pytest.mark.parametrize(("changes", "word"), [
    ({"hidden_act": "mish"}, "hidden_act"),
    ({"hidden_act": None}, "hidden_act"),
    ({"hidden_act": ["gelu"]}, "hidden_act"),
    ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
    ({"is_decoder": True}, "is_decoder"),
    ({"hidden_size": 13}, "hidden_size"),
    ({"num_hidden_layers": 0}, "num_hidden_layers"),
    ({"hidden_size": "many"}, "hidden_size"),
    ({"secformer": 7}, "secformer"),
])
def test_refused(changes: dict[str, Any], word: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=word):
        read(write(tmp_path, **changes))


@pytest.mark.parametrize(("changes", "supported"), [
    ({"architectures": ["BertForMultipleChoice"]}, Bert.classes), ({"architectures": None}, Bert.classes),
    ({"model_type": "gptj"}, FAMILIES), ({"model_type": "roberta"}, Roberta.classes),
])
def test_unsupported_architecture_lists_the_supported(changes: dict[str, Any], supported: Iterable[str],
                                                      tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read(write(tmp_path, **changes))
    assert all(name in str(caught.value) for name in supported)
    assert "Other names in the file do not help" in str(caught.value), "it must not invite to relabel a model"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"architectures": ["BertModel"]}', "\x00\x01"])
def test_unreadable(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, "utf-8")
    with pytest.raises(ModelError, match=r"config\.json"):
        read(tmp_path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        read(tmp_path)


def test_a_score_by_the_newest_spelling(tmp_path: Path) -> None:
    """Beside the config, and before what the config says."""
    stated = {"activation_fn": "Sigmoid"}
    folder = write(tmp_path, "BertForSequenceClassification", labels=1, sentence_transformers=stated)
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"activation_fn": CLASS}), "utf-8")
    assert read(folder).spec.score == "identity"
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"activation_fn": "torch.nn.Tanh"}), "utf-8")
    with pytest.raises(ModelError, match=r"activation_fn of config_sentence_transformers\.json must be a class named"):
        read(folder)


@pytest.mark.parametrize(("changes", "word"), [
    ({"architectures": 3}, "architectures"), ({"architectures": "BertModel"}, "architectures"),
])
def test_entries_of_another_type_name_their_key(changes: dict[str, Any], word: str, tmp_path: Path) -> None:
    """Found by fuzzing."""
    (tmp_path / "config.json").write_text(json.dumps(config() | changes), "utf-8")
    with pytest.raises(ModelError, match=word):
        read(tmp_path)
