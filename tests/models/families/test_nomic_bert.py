"""NomicBERT: every class against transformers' own, on tiny random weights of odd sizes; variants that are not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families_lab import expected, matches, save, tokens
from sentence_lab import OWNER, put

from secformer.models.families.folder import ModelFolder
from secformer.models.families.nomic_bert import NomicBert
from secformer.models.ranges.profile import measure
from secformer.models.run.local import plain_bert
from secformer.mpc.errors import InputError, ModelError
from secformer.mpc.fixed import FixedPoint

ODD: dict[str, Any] = {"hidden_size": 30, "num_attention_heads": 5, "intermediate_size": 21, "num_hidden_layers": 2,
                       "max_position_embeddings": 40, "type_vocab_size": 2}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", NomicBert.classes)
def test_every_class_against_transformers(name: str, tmp_path: Path) -> None:
    matches(save(tmp_path, name, **ODD), name, tokens(segments=2))


def test_outlier_channels_and_sharp_attention(tmp_path: Path) -> None:
    matches(save(tmp_path, "NomicBertModel", outlier=20.0, sharp=3.0, **ODD), "NomicBertModel", tokens(segments=2))


@pytest.mark.parametrize("entries", [
    {"hidden_act": "gelu"}, {"hidden_act": "gelu_new"}, {"intermediate_size": 19, "num_attention_heads": 1},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}},
], ids=str)
def test_variants_in_plaintext(entries: dict[str, Any], tmp_path: Path) -> None:
    given = tokens(segments=2, longest=23)
    matches(save(tmp_path, "NomicBertModel", **(ODD | entries)), "NomicBertModel", given, secure=False)


def test_positions_count(tmp_path: Path) -> None:
    """Another base of angles gives another answer."""
    answers = [plain_bert(save(tmp_path / str(theta), "NomicBertModel", **ODD, rope_parameters={"rope_theta": theta}),
                          tokens(segments=2)).last_hidden_state for theta in (10.0, 1000.0)]
    assert np.abs(answers[0] - answers[1]).max() > 1e-2


def test_a_folder_of_sentence_transformers(tmp_path: Path) -> None:
    """As the family's checkpoints are published: means of tokens, brought to unit length."""
    folder = save(tmp_path, "NomicBertModel", **ODD)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    put(folder / "modules.json", [{"idx": i, "name": str(i), "path": path, "type": f"{OWNER}.{kind}"}
                                  for i, (path, kind) in enumerate(kinds.items())])
    put(folder / "1_Pooling/config.json", {"word_embedding_dimension": 30, "pooling_mode_mean_tokens": True})
    given = tokens(segments=2)
    means = expected(folder, "NomicBertModel", given)["last_hidden_state"]
    means = (means * given["attention_mask"][..., None]).sum(axis=1)
    found = plain_bert(folder, given).sentence_embedding
    np.testing.assert_allclose(found, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("name", NomicBert.classes)
def test_sites_results_and_facts(name: str, tmp_path: Path) -> None:
    folder = ModelFolder(save(tmp_path, name, **ODD))
    own = folder.architecture
    assert tuple(measure(folder, ["the cat sat", "dog"]).sites) == own.sites
    assert NomicBert.from_facts(json.loads(json.dumps(own.facts()))) == own
    assert ("pooler_output" in own.results) is (name == "NomicBertForSequenceClassification")
    names = {part.names[0] for tensor in own.layout(64).values() for part in tensor.parts}
    folder.verify(FixedPoint())
    assert not folder.notes and len(names) > 10
    with pytest.raises(ModelError, match="not trained here"):
        _ = own.hidden_sites


@pytest.mark.parametrize("entries, message", [
    ({"hidden_size": 15, "head_dim": 3}, "num_attention_heads must be even"),
    ({"hidden_size": 20, "num_attention_heads": 3}, "a multiple of num_attention_heads = 3"),
    ({"head_dim": 4}, r"head_dim must be hidden_size / num_attention_heads = 6, got 4"),
    ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 2.0}},
     r"rope_type of rope_parameters must be 'default' \(positions are not scaled\), got 'yarn'"),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": -1.0}}, "rope_theta of rope_parameters must be a num"),
    ({"rope_parameters": {"rope_theta": 9.0, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ({"hidden_act": "mish"}, "hidden_act must be one of 'gelu'"),
    ({"n_layer": 12}, "n_layer must be num_hidden_layers = 2, got 12"),
    ({"rotary_emb_base": 10000}, "rotary_emb_base must be rope_parameters' rope_theta = 1000, got 10000"),
    ({"rotary_emb_interleaved": True}, "rotary_emb_interleaved must be False, got True"),
    ({"num_experts": 8}, "num_experts must be 0, got 8"),
])
def test_variants_that_are_not_run(entries: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = save(tmp_path, "NomicBertModel", **ODD)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | entries), "utf-8")
    with pytest.raises(ModelError, match=message):
        ModelFolder(folder)


def test_former_keys_that_agree(tmp_path: Path) -> None:
    """The first configs say sizes twice; what agrees is taken."""
    folder = save(tmp_path, "NomicBertModel", **ODD)
    file = folder / "config.json"
    former = {"n_embd": 30, "n_layer": 2, "n_head": 5, "n_inner": 21, "rotary_emb_base": 1000, "prenorm": False,
              "rotary_emb_fraction": 1.0, "activation_function": "swiglu", "causal": False}
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | former), "utf-8")
    assert ModelFolder(folder).architecture.spec.hidden == 30


def test_a_text_beyond_the_longest(tmp_path: Path) -> None:
    """No table of positions ends there, but the model was not trained for more."""
    with pytest.raises(InputError, match=r"41 tokens.*40"):
        plain_bert(save(tmp_path, "NomicBertModel", **ODD), {"input_ids": np.full((1, 41), 5)})


def test_tensors_of_another_family(tmp_path: Path) -> None:
    save(tmp_path / "bert", "BertModel", **(ODD | {"vocab_size": 39}))
    folder = save(tmp_path, "NomicBertModel", **ODD)
    (tmp_path / "bert/model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"emb_ln\.weight"):
        ModelFolder(folder).verify(FixedPoint())
