"""ModernBERT: every class against transformers' own, on tiny random weights of odd sizes; local attention that
reaches less far than texts; outliers in the residual stream; variants that are not run.

transformers gives tokens that have nothing within reach the mean of all values, but only in single precision: in
double, its own mask makes them NaN.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families_lab import matches, save, tokens

from secformer.models.data.batch import Batch
from secformer.models.families.folder import ModelFolder
from secformer.models.families.local import Meeting
from secformer.models.families.modernbert import ModernBert
from secformer.models.ranges.profile import measure
from secformer.models.run.local import plain_bert
from secformer.mpc.errors import ModelError
from secformer.mpc.fixed import FixedPoint

ODD: dict[str, Any] = {
    "hidden_size": 30, "num_attention_heads": 5, "intermediate_size": 21, "num_hidden_layers": 2, "local_attention": 6,
    "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2,
    "sep_token_id": 3,
}
BIASES = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
LONG = 23  # tokens: more than are within reach, and than a block has
SECOND = {"layer_types": ["sliding_attention", "full_attention"]}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", ModernBert.classes)
def test_every_class_against_transformers(name: str, tmp_path: Path) -> None:
    matches(save(tmp_path, name, **ODD), name, tokens(longest=13), single=True)


def test_blocks_and_far_padding(tmp_path: Path) -> None:
    """Several blocks, and tokens of padding that have nothing within reach."""
    given = tokens(longest=LONG)
    folder = save(tmp_path, "ModernBertModel", **ODD)
    meeting = Meeting.within(Batch(tuple(ModelFolder(folder).tokenizer.rows(given))), 3, 6)
    assert meeting.queries.shape[1] > 2 and meeting.alone.sum() == 4
    matches(folder, "ModernBertModel", given, single=True)


def test_outlier_channels_and_sharp_attention(tmp_path: Path) -> None:
    folder = save(tmp_path, "ModernBertModel", outlier=20.0, sharp=2.0, **ODD)
    matches(folder, "ModernBertModel", tokens(longest=LONG), single=True)


def test_a_residual_stream_of_hundreds(tmp_path: Path) -> None:
    """One channel, of every token, is hundreds of times the others, from the embedding to the last LayerNorm; as in
    large models, what reads the stream without a LayerNorm makes little of it."""
    from safetensors.numpy import load_file, save_file

    folder, channel, factor = save(tmp_path, "ModernBertModel", **(ODD | {"num_hidden_layers": 3})), 4, 300.0
    found = load_file(folder / "model.safetensors")
    found["embeddings.norm.weight"][channel] *= factor
    found["layers.0.attn.Wqkv.weight"][:, channel] /= factor
    save_file(found, folder / "model.safetensors", {"format": "pt"})
    reach = measure(ModelFolder(folder), ["the cat sat", "a good film is not a bad film !"]).sites
    for site in ("layer.0.mlp.layernorm", "layer.2.attention.layernorm", "final.layernorm"):
        assert reach[site]["input"].reach > 300.0
    matches(folder, "ModernBertModel", tokens(longest=LONG), single=True)


@pytest.mark.parametrize("name, entries", [
    ("ModernBertForMaskedLM", BIASES | {"decoder_bias": False}),
    ("ModernBertForMaskedLM", {"tie_word_embeddings": False, "classifier_activation": "silu"}),
    ("ModernBertForMaskedLM", {"sparse_prediction": True}),  # which changes a loss alone
    ("ModernBertForSequenceClassification", BIASES | {"classifier_pooling": "mean"}),
    ("ModernBertForTokenClassification", SECOND | {"hidden_activation": "gelu_new"}),
    ("ModernBertModel", {"local_attention": 1}), ("ModernBertModel", {"local_attention": 7, "norm_eps": 0.1}),
    ("ModernBertModel", {"layer_types": ["full_attention"] * 2, "num_attention_heads": 1}),
    ("ModernBertModel", {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 99.0},
                                             "sliding_attention": {"rope_type": "default", "rope_theta": 7.0}}}),
], ids=str)
def test_variants_in_plaintext(name: str, entries: dict[str, Any], tmp_path: Path) -> None:
    matches(save(tmp_path, name, **(ODD | entries)), name, tokens(longest=LONG), single=True, secure=False)


def test_biases_and_means_on_shares(tmp_path: Path) -> None:
    name = "ModernBertForSequenceClassification"
    folder = save(tmp_path, name, **(ODD | BIASES | {"classifier_pooling": "mean"}))
    matches(folder, name, tokens(longest=13), single=True)


def edited(folder: Path, entries: dict[str, Any], *without: str) -> Path:
    """The folder with other entries in its config, and without some."""
    file = folder / "config.json"
    found = json.loads(file.read_text("utf-8")) | entries
    file.write_text(json.dumps({key: value for key, value in found.items() if key not in without}), "utf-8")
    return folder


def test_configs_of_the_first_versions(tmp_path: Path) -> None:
    """They say every which layer is global, and the bases of angles, by keys of their own."""
    former = {"global_attn_every_n_layers": 2, "global_rope_theta": 99.0, "local_rope_theta": 7.0}
    folder = edited(save(tmp_path, "ModernBertModel", **(ODD | {"num_hidden_layers": 3})), former, "layer_types",
                    "rope_parameters")
    spec = ModelFolder(folder).architecture.spec
    assert (spec.local, spec.thetas, spec.reach) == ((False, True, False), (99.0, 7.0), 3)
    matches(folder, "ModernBertModel", tokens(longest=LONG), single=True, secure=False)


def test_a_pair_and_short_texts(tmp_path: Path) -> None:
    """Texts of their own lengths: together, each has the answer that it has alone."""
    folder = save(tmp_path, "ModernBertForSequenceClassification", **ODD)
    texts = [("the cat sat", "a dog ran on the mat"), ("dog", ""), ("a good film is not a bad film , is it ?", "very")]
    together = plain_bert(folder, texts)
    for i, text in enumerate(texts):
        np.testing.assert_allclose(plain_bert(folder, [text]).logits[0], together.logits[i], atol=1e-12)


def test_served(tmp_path: Path) -> None:
    """Parties read their series from books, one for each class of lengths; blocks have other sizes within a class."""
    pytest.importorskip("prometheus_client", reason="the served roles need the extra `serve`")
    from engines_lab import Engines

    folder = save(tmp_path / "model", "ModernBertModel", **ODD)
    texts = ["the cat sat " * 6, "a dog ran on the mat " * 3 + "!", "dog"]
    with Engines(tmp_path / "served", folder) as engines:
        engines.ready()
        with engines.client() as model:
            out = model.infer(texts)
    wanted = plain_bert(folder, texts).last_hidden_state
    np.testing.assert_allclose(out.last_hidden_state, wanted, rtol=0.0, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ModernBert.classes)
def test_sites_results_and_facts(name: str, tmp_path: Path) -> None:
    folder = ModelFolder(save(tmp_path, name, **ODD))
    own = folder.architecture
    assert tuple(measure(folder, ["the cat sat", "dog"]).sites) == own.sites
    assert ModernBert.from_facts(json.loads(json.dumps(own.facts()))) == own
    folder.verify(FixedPoint())
    assert not folder.notes and "layer.0.attention.layernorm.weight" not in own.weights()
    assert list(own.results) == ["last_hidden_state", "logits"][: 1 if name == "ModernBertModel" else 2]
    with pytest.raises(ModelError, match="not trained here"):
        _ = own.sizes


def full(**entries: Any) -> dict[str, Any]:
    """Rope parameters of both kinds of layers, with changes of the global ones."""
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    return {"rope_parameters": {"full_attention": plain | entries, "sliding_attention": plain}}


@pytest.mark.parametrize("entries, message", [
    ({"hidden_size": 15}, "even, for rotary positions, got 3"),
    (full(rope_type="linear", factor=2.0), r"rope_type of rope_parameters.full_attention must be 'default'"),
    (full(rope_theta=None), r"rope_theta of rope_parameters.full_attention must be a number above 1"),
    ({"layer_types": ["full_attention"]}, "does not take: .*`layer_types`"),
    ({"layer_types": ["full_attention", "chunked_attention"]}, "layer_types"),
    ({"hidden_activation": "mish"}, "hidden_activation must be one of 'gelu'"),
    ({"classifier_activation": "mish"}, "classifier_activation must be one of 'gelu'"),
    ({"classifier_pooling": "max"}, "classifier_pooling"),
    ({"local_attention": 0}, "local_attention must be a positive integer"),
])
def test_variants_that_are_not_run(entries: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        ModelFolder(edited(save(tmp_path, "ModernBertModel", **ODD), entries))


def test_tensors_of_another_family(tmp_path: Path) -> None:
    save(tmp_path / "nomic", "NomicBertModel", hidden_size=30, num_attention_heads=5, num_hidden_layers=1)
    folder = save(tmp_path, "ModernBertModel", **ODD)
    (tmp_path / "nomic/model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"embeddings\.norm\.weight|tok_embeddings"):
        ModelFolder(folder).verify(FixedPoint())
