"""DistilBERT against transformers' own classes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families_lab import matches, refuses, save, tokens

from secformer.models.families.distilbert import DistilBert
from secformer.models.families.folder import ModelFolder
from secformer.models.run.local import plain_bert
from secformer.mpc.errors import InputError, ModelError

ODD: dict[str, Any] = {"vocab_size": 39, "dim": 15, "n_layers": 2, "n_heads": 5, "hidden_dim": 17,
                       "max_position_embeddings": 33}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", DistilBert.classes)
def test_every_class_against_transformers(name: str, tmp_path: Path) -> None:
    out = matches(save(tmp_path, name, **ODD), name, tokens())
    assert not any("not used" in note for note in out.notes)


def test_outlier_channels_sharp_attention_and_another_activation(tmp_path: Path) -> None:
    name = "DistilBertForSequenceClassification"
    folder = save(tmp_path, name, outlier=20.0, sharp=3.0, activation="relu", **ODD | {"n_layers": 1})
    assert "layer.0.relu" in ModelFolder(folder).architecture.sites
    matches(folder, name, tokens())


def test_a_head_of_its_own_words(tmp_path: Path) -> None:
    name = "DistilBertForMaskedLM"
    matches(save(tmp_path, name, tie_word_embeddings=False, **ODD), name, tokens(), secure=False)


def test_segments_are_left_out(tmp_path: Path) -> None:
    """The tokenizer may give some, as BERT's does; a pair is one text to the model."""
    pytest.importorskip("torch")
    from transformers import AutoTokenizer, DistilBertModel

    folder = save(tmp_path, "DistilBertModel", **ODD)
    facts = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    facts["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(facts), "utf-8")
    given = AutoTokenizer.from_pretrained(str(folder))("the cat", "a dog sat", return_tensors="pt")
    assert int(given.pop("token_type_ids").max()) == 1
    wanted = DistilBertModel.from_pretrained(str(folder)).double().eval()(**given).last_hidden_state.detach().numpy()
    found = plain_bert(folder, [("the cat", "a dog sat")])
    np.testing.assert_allclose(found.last_hidden_state, wanted, rtol=0.0, atol=1e-6)
    assert found.pooler_output is None


@pytest.mark.parametrize(("changes", "says"), [
    ({"activation": "mish"}, "activation must be one of"),
    ({"n_heads": 4}, "dim must be a multiple of n_heads = 4"),
    ({"hidden_dim": 0}, "hidden_dim must be a positive integer"),
    ({"architectures": ["DistilBertForMultipleChoice"]}, "Supported: type 'distilbert' with DistilBertModel"),
])
def test_variants_that_are_not_run(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    refuses(save(tmp_path, "DistilBertModel", tokenizer=False, **ODD), changes, says)


def test_a_config_with_the_tensors_of_another_family(tmp_path: Path) -> None:
    folder = save(tmp_path, "DistilBertModel", **ODD)
    save(tmp_path / "other", "BertModel", vocab_size=39, hidden_size=15, num_hidden_layers=2, num_attention_heads=5,
         intermediate_size=17, max_position_embeddings=33)
    (tmp_path / "other/model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks tensor 'transformer.layer.0.attention.q_lin.weight' \(with or without "
                                         r"'distilbert.'\).*not those of the architecture that config.json names"):
        plain_bert(folder, "a")


def test_a_text_beyond_the_positions(tmp_path: Path) -> None:
    folder = save(tmp_path, "DistilBertModel", **ODD)
    with pytest.raises(InputError, match="34 tokens; this model takes at most 33"):
        plain_bert(folder, {"input_ids": [[7] * 34]})
