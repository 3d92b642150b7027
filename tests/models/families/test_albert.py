"""ALBERT against transformers' own classes; its layers are stored and provisioned once, however often they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from families_lab import matches, refuses, save, tokens

from secformer.models.families.albert import Albert
from secformer.models.families.folder import ModelFolder
from secformer.models.families.heads import Head
from secformer.models.run.local import SecureModel, plain_bert
from secformer.mpc.errors import InputError, ModelError

ODD: dict[str, Any] = {
    "hidden_size": 15, "embedding_size": 7, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 17,
    "max_position_embeddings": 33}
GROUPS = ODD | {"num_hidden_layers": 3, "num_hidden_groups": 2, "inner_group_num": 2}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", Albert.classes)
def test_every_class_against_transformers(name: str, tmp_path: Path) -> None:
    out = matches(save(tmp_path, name, **ODD), name, tokens(segments=2))
    assert (out.pooler_output is not None) == (Albert.classes[name] in (Head.ENCODER, Head.SEQUENCE))
    assert not any("not used" in note for note in out.notes)


def test_outlier_channels_and_sharp_attention(tmp_path: Path) -> None:
    folder = save(tmp_path, "AlbertModel", outlier=20.0, sharp=3.0, **ODD | {"num_hidden_layers": 1})
    matches(folder, "AlbertModel", tokens(segments=2))


def test_groups_of_layers(tmp_path: Path) -> None:
    folder = save(tmp_path, "AlbertModel", **GROUPS)
    found = ModelFolder(folder).architecture
    assert isinstance(found, Albert) and found.spec.layers == 6
    assert [found.stored(i) for i in range(6)] == [0, 1, 0, 1, 2, 3]
    assert found.place(3) == "encoder.albert_layer_groups.1.albert_layers.1"
    assert "layer.5.gelu_new" in found.sites
    matches(folder, "AlbertModel", tokens(segments=2))


def test_a_head_of_its_own_words(tmp_path: Path) -> None:
    matches(save(tmp_path, "AlbertForMaskedLM", tie_word_embeddings=False, **ODD), "AlbertForMaskedLM",
            tokens(segments=2), secure=False)


def test_layers_are_provisioned_once(tmp_path: Path) -> None:
    costs = {}
    for layers in (1, 4):
        folder = save(tmp_path / str(layers), "AlbertModel", **ODD | {"num_hidden_layers": layers})
        with SecureModel.from_pretrained(folder, backend="numpy") as model:
            cost, names = model.provision(), {name for name in model.layout if name.startswith("layer.")}
        costs[layers] = cost.offline_bytes, cost.dealer_bytes, names
    assert costs[1] == costs[4] and costs[1][0] > 0 and all(name.startswith("layer.0.") for name in costs[4][2])


@pytest.mark.parametrize(("changes", "says"), [
    ({"num_hidden_groups": 3}, "num_hidden_groups must be at most num_hidden_layers = 2"),
    ({"inner_group_num": 0}, "inner_group_num must be a positive integer"),
    ({"position_embedding_type": "relative_key"}, "position_embedding_type must be 'absolute'"),
    ({"is_decoder": True}, "is_decoder or add_cross_attention must be false"),
    ({"architectures": ["AlbertForPreTraining"]}, "Supported: type 'albert' with AlbertModel"),
])
def test_variants_that_are_not_run(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    refuses(save(tmp_path, "AlbertModel", **ODD), changes, says)


def test_a_config_with_other_tensors_and_a_text_beyond_the_positions(tmp_path: Path) -> None:
    folder = save(tmp_path, "AlbertModel", **ODD)
    with pytest.raises(InputError, match="34 tokens; this model takes at most 33"):
        plain_bert(folder, {"input_ids": [[7] * 34]})
    save(tmp_path / "other", "ElectraModel", **ODD)
    (tmp_path / "other/model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks tensor 'encoder.embedding_hidden_mapping_in.weight'"):
        plain_bert(folder, "a")
