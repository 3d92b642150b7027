"""ELECTRA against transformers' own classes, with and without a projection of its embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from families_lab import matches, refuses, save, tokens

from secformer.models.families.electra import Electra
from secformer.models.families.folder import ModelFolder
from secformer.models.run.local import plain_bert
from secformer.mpc.errors import InputError, ModelError

ODD: dict[str, Any] = {
    "hidden_size": 15, "embedding_size": 7, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 17,
    "max_position_embeddings": 33}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", Electra.classes)
def test_every_class_against_transformers(name: str, tmp_path: Path) -> None:
    out = matches(save(tmp_path, name, **ODD), name, tokens(segments=2))
    assert out.pooler_output is None and not any("not used" in note for note in out.notes)


def test_embeddings_of_the_hidden_size_are_not_projected(tmp_path: Path) -> None:
    folder = save(tmp_path, "ElectraModel", outlier=20.0, sharp=3.0,
                  **ODD | {"embedding_size": 15, "num_hidden_layers": 1})
    assert "embedding.projection.weight" not in ModelFolder(folder).architecture.weights()
    matches(folder, "ElectraModel", tokens(segments=2))


def test_a_discriminators_answer_and_activation(tmp_path: Path) -> None:
    """One number for each token; its head has the layers' activation."""
    name = "ElectraForPreTraining"
    folder = save(tmp_path, name, hidden_act="relu", **ODD)
    assert ModelFolder(folder).architecture.sites[-1] == "head.relu"
    assert matches(folder, name, tokens(segments=2), secure=False).logits.shape == (5, 11)


@pytest.mark.parametrize("name", ["ElectraForSequenceClassification", "ElectraForMaskedLM"])
def test_heads_have_gelu_whatever_the_layers_have(name: str, tmp_path: Path) -> None:
    folder = save(tmp_path, name, hidden_act="relu", tie_word_embeddings=False, **ODD)
    sites = ModelFolder(folder).architecture.sites
    assert "layer.0.relu" in sites and "head.gelu" in sites
    matches(folder, name, tokens(segments=2), secure=False)


@pytest.mark.parametrize(("changes", "says"), [
    ({"is_decoder": True}, "is_decoder or add_cross_attention must be false"),
    ({"position_embedding_type": "relative_key_query"}, "position_embedding_type must be 'absolute'"),
    ({"embedding_size": 0}, "embedding_size must be a positive integer"),
    ({"architectures": ["ElectraForCausalLM"]}, "Supported: type 'electra' with ElectraModel"),
])
def test_variants_that_are_not_run(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    refuses(save(tmp_path, "ElectraModel", **ODD), changes, says)


def test_a_config_with_other_tensors_and_a_text_beyond_the_positions(tmp_path: Path) -> None:
    folder = save(tmp_path, "ElectraModel", **ODD)
    with pytest.raises(InputError, match="34 tokens; this model takes at most 33"):
        plain_bert(folder, {"input_ids": [[7] * 34]})
    save(tmp_path / "other", "BertModel", hidden_size=15, num_attention_heads=5, num_hidden_layers=2,
         intermediate_size=17, max_position_embeddings=33)
    (tmp_path / "other/model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"word_embeddings.weight' has shape \(39, 15\); config.json asks for"):
        plain_bert(folder, "a")
