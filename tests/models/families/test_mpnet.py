"""MPNet against transformers' own classes: positions, relative biases, and sentence encoders made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families_lab import describes_itself, matches, save, tokens
from sentence_lab import encoded, put

from secformer.models.data.batch import Batch, Row
from secformer.models.families.folder import ModelFolder
from secformer.models.families.mpnet import MPNet
from secformer.models.ranges.profile import measure
from secformer.models.run.local import SecureModel, plain_bert
from secformer.mpc.errors import InputError, ModelError

SIZES: dict[str, Any] = {"hidden_size": 15, "num_attention_heads": 5, "intermediate_size": 17, "num_hidden_layers": 2,
                         "max_position_embeddings": 34, "pad_token_id": 1}
TEXTS = ["the cat sat on the mat", "dog", "", "a good film is not a bad film !"]
GIVEN = tokens(pad=1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MPNet.classes)
def test_every_class_against_transformers(name: str, tmp_path: Path) -> None:
    matches(save(tmp_path, name, **SIZES), name, GIVEN)


@pytest.mark.filterwarnings("ignore")
def test_outlier_channels_and_sharp_attention(tmp_path: Path) -> None:
    matches(save(tmp_path, "MPNetModel", outlier=20.0, sharp=3.0, **SIZES), "MPNetModel", GIVEN)


@pytest.mark.filterwarnings("ignore")
def test_texts_beyond_the_farthest_bucket(tmp_path: Path) -> None:
    """Distances from 8 on share buckets, and those from 128 on share one."""
    sizes = SIZES | {"num_hidden_layers": 1, "max_position_embeddings": 152}
    given = {key: value[:2] for key, value in tokens(pad=1, longest=150).items()}
    matches(save(tmp_path, "MPNetModel", **sizes), "MPNetModel", given, secure=False)


@pytest.mark.filterwarnings("ignore")
def test_the_activation_of_layers_is_not_that_of_the_head(tmp_path: Path) -> None:
    """transformers' head for words has GeLU, whatever the layers have."""
    folder = save(tmp_path, "MPNetForMaskedLM", **(SIZES | {"hidden_act": "relu", "tie_word_embeddings": False}))
    matches(folder, "MPNetForMaskedLM", GIVEN, secure=False)
    assert ModelFolder(folder).architecture.sites[-2:] == ("head.gelu", "head.layernorm")


@pytest.mark.filterwarnings("ignore")
def test_biases_are_of_trained_size(tmp_path: Path) -> None:
    """Biases larger than all products: the sum is what is measured, and what must fit."""
    folder = save(tmp_path, "MPNetModel", **SIZES)
    from safetensors.numpy import load_file, save_file

    file = tmp_path / "model.safetensors"
    stored = load_file(file)
    stored["encoder.relative_attention_bias.weight"] *= 20.0
    save_file(stored, file, {"format": "pt"})
    matches(folder, "MPNetModel", GIVEN)
    profile = measure(ModelFolder(folder), TEXTS)
    largest = np.abs(stored["encoder.relative_attention_bias.weight"][:8]).max()
    assert profile("layer.0.softmax")["score"].reach > largest / 2 > 8


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MPNet.classes)
def test_sites_results_and_facts_are_those_of_the_program(name: str, tmp_path: Path) -> None:
    describes_itself(save(tmp_path, name, **SIZES), TEXTS[:2])


@pytest.mark.filterwarnings("ignore")
def test_positions_count_attended_tokens(tmp_path: Path) -> None:
    own = ModelFolder(save(tmp_path, "MPNetModel", **SIZES)).architecture
    assert isinstance(own, MPNet) and own.inputs.longest == 32 and own.inputs.segments == 0
    nothing = np.zeros(4, np.int64)
    rows = [Row(nothing, nothing, np.array(mask)) for mask in ([0, 0, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1])]
    assert own.positions(Batch(tuple(rows))).tolist() == [1, 1, 2, 3, 2, 1, 3, 4, 2, 3, 4, 5]
    with pytest.raises(InputError, match="at most 32"):
        plain_bert(tmp_path, {"input_ids": np.full((1, 33), 5), "attention_mask": np.ones((1, 33), np.int64)})


@pytest.mark.filterwarnings("ignore")
def test_a_sentence_encoder(tmp_path: Path) -> None:
    """As all-mpnet-base-v2: the mean over tokens, at unit length."""
    folder = save(tmp_path, "MPNetModel", **SIZES)
    kinds = ["Transformer", "Pooling", "Normalize"]
    put(folder / "modules.json", [{"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "",
                                   "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(kinds)])
    put(folder / "1_Pooling/config.json", {"word_embedding_dimension": 15, "pooling_mode_mean_tokens": True})
    put(folder / "sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False})
    wanted = encoded(folder, TEXTS, ["mean"])
    np.testing.assert_allclose(plain_bert(folder, TEXTS).embeddings, wanted, rtol=0.0, atol=1e-7)
    with SecureModel.from_pretrained(folder, backend="numpy", output="head") as model:
        out = model(TEXTS)
    assert out.trusted is not None and out.trusted.all()
    np.testing.assert_allclose(out.embeddings, wanted, rtol=0.0, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(out.embeddings, axis=1), 1.0)


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_without_the_table_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = save(tmp_path, "MPNetModel", **SIZES) / "model.safetensors"
    stored = load_file(file)
    del stored["encoder.relative_attention_bias.weight"]
    save_file(stored, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks tensor 'encoder.relative_attention_bias.weight'"):
        plain_bert(tmp_path, TEXTS)


@pytest.mark.parametrize("entries, message", [
    ({"relative_attention_num_buckets": 16}, "relative_attention_num_buckets must be 32"),
    ({"max_position_embeddings": 2}, "max_position_embeddings must be above 2"),
    ({"is_decoder": True}, "is_decoder"),
    ({"hidden_act": "tanh"}, "hidden_act"),
])
def test_variants_that_are_refused(entries: dict[str, Any], message: str, tmp_path: Path) -> None:
    put(tmp_path / "config.json", {"model_type": "mpnet", "architectures": ["MPNetModel"], **SIZES, **entries})
    with pytest.raises(ModelError, match=message):
        ModelFolder(tmp_path)
