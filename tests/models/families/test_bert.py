"""The plaintext reference against transformers' own models: stored vectors, and live where torch is there.

And what BERT says of itself is what its program does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import MINILM, config, tensors, write_checkpoint

from secformer.models.data.tensors import TABLE
from secformer.models.families.bert import Bert
from secformer.models.families.folder import ModelFolder
from secformer.models.families.program import GUARD
from secformer.models.ranges.profile import measure
from secformer.models.run.local import SecureModel, plain_bert
from secformer.mpc.ring import WORD_BITS

VECTORS = sorted((Path(__file__).parent / "vectors").glob("*.npz"))
CLOSE = {"rtol": 0.0, "atol": 1e-10}


def load(path: Path, folder: Path) -> tuple[Path, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The checkpoint that a vector file describes, its token ids, and the answers."""
    with np.load(path) as stored:
        entries = json.loads(str(stored["config"]))
        weights = {k.removeprefix("weight:"): stored[k] for k in stored if k.startswith("weight:")}
        answers = {k.removeprefix("answer:"): stored[k] for k in stored if k.startswith("answer:")}
        tokens = {k: stored[k] for k in ("input_ids", "attention_mask", "token_type_ids")}
    architecture = entries["architectures"][0]
    prefix = "" if architecture == "BertModel" else "bert."
    write_checkpoint(folder, weights=weights, prefix=prefix, tokenizer=False,
                     **(entries | {"architecture": architecture}))
    return folder, tokens, answers


def within(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values by token, zero beyond the last attended token."""
    last = mask.shape[1] - mask[:, ::-1].argmax(axis=1)
    there = np.arange(mask.shape[1]) < last[:, None]
    return values * there.reshape(*there.shape, *(1,) * (values.ndim - 2))


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
@pytest.mark.parametrize("embedding", ["client", "private"])
def test_stored_vectors(path: Path, embedding: str, tmp_path: Path) -> None:
    folder, tokens, answers = load(path, tmp_path)
    out = plain_bert(folder, tokens, embedding=embedding)
    mask = tokens["attention_mask"]
    assert answers
    for name, expected in answers.items():
        found = getattr(out, name)
        by_token = expected.ndim > 1 and expected.shape[:2] == mask.shape
        np.testing.assert_allclose(found, within(mask, expected) if by_token else expected, **CLOSE)


def test_there_are_vectors_for_every_architecture() -> None:
    assert {p.stem for p in VECTORS} >= {"encoder", "encoder_odd", "sequence", "regression", "token", "question",
                                         "masked", "next", "pretraining"}


def test_batches_of_mixed_lengths_do_not_disturb_each_other(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    texts = ["the cat sat on the mat", "dog", "", "a good film is not a bad film !", "the dog ran"]
    together = plain_bert(folder, texts, batch_tokens=14)
    for i, text in enumerate(texts):
        alone = plain_bert(folder, text)
        n = alone.last_hidden_state.shape[1]
        np.testing.assert_allclose(together.last_hidden_state[i, :n], alone.last_hidden_state[0], **CLOSE)
        np.testing.assert_allclose(together.pooler_output[i], alone.pooler_output[0], **CLOSE)
        assert not together.last_hidden_state[i, n:].any()
        assert together.attention_mask[i].tolist() == [1] * n + [0] * (together.attention_mask.shape[1] - n)


def reference(folder: Path, tokens: dict[str, np.ndarray]) -> Any:
    torch = pytest.importorskip("torch")
    from transformers import BertModel

    model = BertModel.from_pretrained(str(folder)).double().eval()
    with torch.no_grad():
        return model(**{k: torch.from_numpy(v) for k, v in tokens.items()})


@pytest.mark.filterwarnings("ignore")
def test_random_model_against_torch(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    folder = write_checkpoint(tmp_path, seed=9, hidden_size=10, num_attention_heads=5, num_hidden_layers=4)
    tokens = {"input_ids": rng.integers(5, 39, (3, 11)), "token_type_ids": rng.integers(0, 2, (3, 11)),
              "attention_mask": np.ones((3, 11), np.int64)}
    expected, out = reference(folder, tokens), plain_bert(folder, tokens)
    np.testing.assert_allclose(out.last_hidden_state, expected.last_hidden_state.numpy(), **CLOSE)
    np.testing.assert_allclose(out.pooler_output, expected.pooler_output.numpy(), **CLOSE)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not MINILM.is_dir(), reason="the pretrained MiniLM folder is not here")
def test_minilm_against_torch() -> None:
    pytest.importorskip("torch")
    from transformers import AutoTokenizer

    texts = ["A man is playing a guitar on stage.", "Hello", "What is 7 times 8? Somebody wrote 56!"]
    tokens = AutoTokenizer.from_pretrained(str(MINILM))(texts, padding=True, return_tensors="np")
    expected, out = reference(MINILM, dict(tokens)), plain_bert(MINILM, texts)
    hidden = within(tokens["attention_mask"], expected.last_hidden_state.numpy())
    np.testing.assert_allclose(out.last_hidden_state, hidden, **CLOSE)


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


@pytest.mark.parametrize("architecture", Bert.classes)
def test_sites_and_results_are_those_of_the_program(tmp_path: Path, architecture: str) -> None:
    folder = ModelFolder(write_checkpoint(tmp_path, architecture))
    profile = measure(folder, ["the cat sat", "dog"])
    assert tuple(profile.sites) == folder.architecture.sites
    with SecureModel.from_pretrained(tmp_path, backend="numpy") as model:
        assert (*folder.architecture.results, GUARD) == model.names
        model(["the cat sat", "dog"])
    assert set(folder.architecture.hidden_sites) < set(folder.architecture.sites)


def test_pretraining_and_next_sentence_on_shares(tmp_path: Path) -> None:
    pairs = [("the cat sat", "it ran"), ("dog", "a good film")]
    words = write_checkpoint(tmp_path / "words", "BertForPreTraining", prefix="bert.", hidden_act="silu")
    with SecureModel.from_pretrained(words, backend="numpy", output="head") as model:
        out = model(pairs)
    plain = plain_bert(words, pairs)
    assert model.names == ("prediction_logits", "seq_relationship_logits", GUARD) and out.last_hidden_state is None
    np.testing.assert_allclose(out.prediction_logits, plain.prediction_logits, rtol=0.0, atol=3e-3)
    np.testing.assert_allclose(out.seq_relationship_logits, plain.seq_relationship_logits, rtol=0.0, atol=3e-3)
    after = write_checkpoint(tmp_path / "next", "BertForNextSentencePrediction", prefix="bert.", seed=4)
    with SecureModel.from_pretrained(after, backend="numpy") as model:
        out = model(pairs)
    np.testing.assert_allclose(out.logits, plain_bert(after, pairs).logits, rtol=0.0, atol=3e-3)
    assert set(out.labels) <= {"continuation", "random"} and out.probabilities.shape == (2, 2)


@pytest.mark.parametrize("architecture", Bert.classes)
def test_facts_survive_json(tmp_path: Path, architecture: str) -> None:
    own = ModelFolder(write_checkpoint(tmp_path, architecture)).architecture
    assert type(own).from_facts(json.loads(json.dumps(own.facts()))) == own


def test_stored_names_are_the_checkpoints(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    folder = ModelFolder(write_checkpoint(tmp_path, "BertForSequenceClassification", prefix="bert."))
    layout = folder.architecture.layout(64)
    names = {part.names[0] for tensor in layout.values() for part in tensor.parts}
    assert {folder.architecture.stored_name(name) for name in names} == set(load_file(tmp_path / "model.safetensors"))
