"""Sentence embeddings against the formulas of sentence-transformers on transformers' own hidden states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bytes_lab import WORDS, write_bytes
from checkpoints import write_checkpoint
from families_lab import save
from mpc_lab import Words, run
from sentence_lab import WAYS, add_modules, encoded, pooled, write_sentence
from toy_family import exact, write_toy

from secformer.models.data.batch import blind_batch
from secformer.models.data.parameters import Parameters
from secformer.models.families.architecture import SENTENCE
from secformer.models.families.blocks import Forward
from secformer.models.families.folder import ModelFolder
from secformer.models.families.pooling import weights
from secformer.models.families.program import GUARD
from secformer.models.families.sentence import SentenceModel
from secformer.models.families.table import architecture_from
from secformer.models.ranges.profile import measure
from secformer.models.run.check import check
from secformer.models.run.comparison import compare
from secformer.models.run.local import SecureModel, plain_bert, twin
from secformer.mpc.errors import InputError, ModelError
from secformer.mpc.fixed import encode
from secformer.protocols.ranges import Range
from secformer.protocols.recipes import FAITHFUL

TEXTS = ["the cat sat on the mat", "dog", "", "a good film is not a bad film !"]
EXACT, NEAR = {"rtol": 0.0, "atol": 1e-7}, {"rtol": 0.0, "atol": 1e-3}
SECURE = {"rtol": 0.0, "atol": 3e-3}
LAYERS = [(7, "activation.Tanh", True), (5, "activation.SiLU", False), (6, "activation.GELU", True),
          (3, "activation.ReLU", True), (4, "linear.Identity", True)]
CASES: dict[str, dict[str, Any]] = {
    **{way: {"ways": [way], "unit": False} for way in WAYS},
    "unit": {"ways": ["cls"]},
    "all": {"ways": WAYS, "unit": False},
    "joined": {"ways": ["max", "mean"]},
    "dense": {"ways": ["mean"], "dense": [(5, "activation.Tanh", True)]},
    "layers": {"ways": ["cls", "weightedmean"], "dense": LAYERS, "unit": False},
}
SIZES = {"hidden_size": 9, "num_attention_heads": 3, "intermediate_size": 13}


def wanted(folder: Path, **case: Any) -> np.ndarray:
    pytest.importorskip("torch")
    return encoded(folder, TEXTS, **case)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_against_the_formulas(case: dict[str, Any], tmp_path: Path) -> None:
    folder = write_sentence(tmp_path, **case, **SIZES)
    expected = wanted(folder, **case)
    np.testing.assert_allclose(plain_bert(folder, TEXTS).embeddings, expected, **EXACT)
    assert ModelFolder(folder).architecture.embedding_size == expected.shape[1]
    np.testing.assert_allclose(twin(folder, TEXTS).embeddings, expected, **NEAR)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["all", "joined", "layers"])
def test_on_shares(name: str, tmp_path: Path) -> None:
    folder = write_sentence(tmp_path, **CASES[name], **SIZES)
    with SecureModel.from_pretrained(folder, backend="numpy") as model:
        out = model(TEXTS)
    np.testing.assert_allclose(out.embeddings, wanted(folder, **CASES[name]), **SECURE)
    assert out.last_hidden_state is not None and out.pooler_output is not None
    assert out.cost is not None and out.as_dict()["embeddings"] == out.embeddings.tolist()


def test_the_embedding_alone(tmp_path: Path) -> None:
    folder = write_sentence(tmp_path, ["mean"], dense=LAYERS[:1])
    with SecureModel.from_pretrained(folder, backend="numpy", output="head") as model:
        out = model(TEXTS)
    assert model.names == (SENTENCE, GUARD) and out.last_hidden_state is None
    np.testing.assert_allclose(out.embeddings, plain_bert(folder, TEXTS).embeddings, **SECURE)
    assert out.as_dict()["embeddings"] == out.embeddings.tolist()
    compared = compare(folder, TEXTS, [FAITHFUL], backend="numpy", runs=1, output="head")
    assert compared.answer == SENTENCE and compared.rows[0].problem == "" and compared.rows[0].cosine > 0.999


@pytest.mark.filterwarnings("ignore")
def test_pooling_of_a_mask_with_holes(tmp_path: Path) -> None:
    tokens = {"input_ids": np.array([[2, 5, 7, 9, 3], [2, 13, 3, 0, 0]]),
              "attention_mask": np.array([[0, 1, 0, 1, 0], [1, 1, 1, 0, 0]])}
    out = plain_bert(write_sentence(tmp_path, WAYS, unit=False), tokens)
    each = [pooled(hidden[:n], mask[:n], WAYS) for hidden, mask, n in
            zip(out.last_hidden_state, tokens["attention_mask"], (4, 3), strict=True)]
    np.testing.assert_allclose(out.embeddings, each, **EXACT)
    with SecureModel.from_pretrained(tmp_path, backend="numpy") as model:
        np.testing.assert_allclose(model(tokens).embeddings, each, **SECURE)


def test_weights_of_tokens() -> None:
    kept = np.array([[0, 1, 1, 0], [0, 0, 0, 0]], dtype=bool)
    found = {way: weights(way, kept) for way in WAYS if way != "max"}
    assert {way: each.tolist() for way, (each, _) in found.items()} == {
        "cls": [[0, 1, 0, 0], [1, 0, 0, 0]], "lasttoken": [[0, 0, 1, 0], [0, 0, 0, 0]],
        "mean": [[0, 1, 1, 0], [0, 0, 0, 0]], "mean_sqrt_len_tokens": [[0, 1, 1, 0], [0, 0, 0, 0]],
        "weightedmean": [[0, 2, 3, 0], [0, 0, 0, 0]]}
    assert {way: factors.tolist() for way, (_, factors) in found.items()} == {
        "cls": [1.0, 1.0], "lasttoken": [1.0, 1.0], "mean": [0.5, 1.0], "mean_sqrt_len_tokens": [1.0 / 2**0.5, 1.0],
        "weightedmean": [0.2, 1.0]}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reach", [1.0, 60.0])
def test_a_long_text_beside_a_short_one(way: str, reach: float, tmp_path: Path) -> None:
    """Both are as exact as alone: a public factor of 1/500 keeps its bits beside one of 1."""
    model = ModelFolder(write_sentence(tmp_path, [way])).architecture
    assert isinstance(model, SentenceModel)
    lengths = np.array([500, 1, 3])
    batch = blind_batch(lengths, np.arange(500) < lengths[:, None])
    x = np.random.default_rng(3).uniform(-reach, reach, (504, 5)) + reach / 2
    forward = Forward(batch, Parameters(), FAITHFUL, lambda site: {"input": Range(-2 * reach, 2 * reach)})
    (found,), _ = run(lambda s, x: model.pool(s, x, forward), Words(encode(x, 16), 16, 64))
    texts = np.split(x, lengths.cumsum()[:-1])
    np.testing.assert_allclose(found, [pooled(t, np.ones(len(t), int), [way]) for t in texts], rtol=2e-5, atol=3e-5)


# ---- texts -----------------------------------------------------------------------------------------------------------

PROMPT = {"prompts": {"query": "the dog ran : ", "other": "x"}, "default_prompt_name": "query"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("include", [True, False])
def test_the_default_prompt(include: bool, tmp_path: Path) -> None:
    """It is before every text; include_prompt says whether its tokens are pooled."""
    folder = write_sentence(tmp_path, WAYS, unit=False, settings=PROMPT, pooling={"include_prompt": include})
    expected = wanted(folder, ways=WAYS, unit=False, prompt="the dog ran : ", skip_prompt=not include)
    np.testing.assert_allclose(plain_bert(folder, TEXTS).embeddings, expected, **EXACT)
    with SecureModel.from_pretrained(folder, backend="numpy") as model:
        np.testing.assert_allclose(model(TEXTS).embeddings, expected, **SECURE)
    bare = encoded(folder, TEXTS, WAYS, unit=False)
    assert np.abs(expected - bare).max() > 0.1


@pytest.mark.filterwarnings("ignore")
def test_the_limit_and_lower_case(tmp_path: Path) -> None:
    folder = write_sentence(tmp_path, limits={"max_seq_length": 5, "do_lower_case": True})
    opened = ModelFolder(folder)
    assert opened.architecture.inputs.longest == 5
    with pytest.raises(InputError, match="at most 5"):
        plain_bert(folder, TEXTS)
    np.testing.assert_allclose(plain_bert(folder, TEXTS, truncation=True).embeddings,
                               wanted(folder, ways=["mean"], limit=5, lower=True), **EXACT)
    facts = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    facts["normalizer"]["lowercase"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(facts), "utf-8")
    rows = ModelFolder(folder).tokenizer.rows
    assert rows("THE Cat")[0].ids.tolist() == rows("the cat")[0].ids.tolist()


@pytest.mark.parametrize(("limit", "positions", "longest"), [(None, 32, 32), (99, 32, 32), (8, 32, 8)])
def test_the_smaller_limit_counts(limit: int | None, positions: int, longest: int, tmp_path: Path) -> None:
    folder = write_sentence(tmp_path, limits={"max_seq_length": limit}, max_position_embeddings=positions)
    assert ModelFolder(folder).architecture.inputs.longest == longest


def test_a_prompt_that_leaves_nothing(tmp_path: Path) -> None:
    folder = write_sentence(tmp_path, settings=PROMPT, pooling={"include_prompt": False}, limits={"max_seq_length": 6})
    with pytest.raises(ModelError, match=r"prompt takes 5 tokens of the 6 .*nothing is left"):
        ModelFolder(folder)


# ---- the architecture ------------------------------------------------------------------------------------------------


def test_sites_results_and_facts(tmp_path: Path) -> None:
    folder = ModelFolder(write_sentence(tmp_path, ["max", "mean"], dense=LAYERS, settings=PROMPT,
                                        pooling={"include_prompt": False}))
    own = folder.architecture
    assert isinstance(own, SentenceModel) and own.modules.skip == 5
    assert own.sites[-5:] == ("sentence.maximum", "sentence.0.tanh", "sentence.1.silu", "sentence.2.gelu",
                              "sentence.3.relu")
    assert tuple(measure(folder, TEXTS).sites) == own.sites
    assert own.results == own.inner.results | {SENTENCE: False}
    assert architecture_from("bert", json.loads(json.dumps(own.facts()))) == own
    assert check(tmp_path, TEXTS).ok and SENTENCE in check(tmp_path, TEXTS).errors
    with pytest.raises(ModelError, match="a classifier that is made of it would not"):
        own.classifier(("a", "b"))
    plain = ModelFolder(write_sentence(tmp_path / "plain")).architecture
    assert isinstance(plain, SentenceModel) and plain.classifier(("a", "b")) == plain.inner.classifier(("a", "b"))


def test_the_encoder_alone_whatever_head_was_stored(tmp_path: Path) -> None:
    """sentence-transformers opens the encoder of a checkpoint, and leaves its head."""
    folder = write_sentence(tmp_path / "a")
    expected = plain_bert(folder, TEXTS).embeddings
    for name in ("BertForMaskedLM", "BertForMultipleChoice"):
        config = json.loads((folder / "config.json").read_text("utf-8")) | {"architectures": [name]}
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        np.testing.assert_array_equal(plain_bert(folder, TEXTS).embeddings, expected)


def test_without_modules_nothing_changes(tmp_path: Path) -> None:
    out = plain_bert(write_checkpoint(tmp_path), TEXTS)
    assert out.sentence_embedding is None
    np.testing.assert_allclose(np.linalg.norm(out.embeddings, axis=1), 1.0)


def test_layers_that_do_not_fit(tmp_path: Path) -> None:
    folder = write_sentence(tmp_path, ["mean"], dense=LAYERS[:2])
    file = folder / "3_Dense/config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"in_features": 8}), "utf-8")
    with pytest.raises(ModelError, match="3_Dense takes 8 numbers, but the module before it gives 7"):
        ModelFolder(folder)


def test_served(tmp_path: Path) -> None:
    """The clients' folder has what a client needs: the limit, the prompt, and how embeddings are finished."""
    pytest.importorskip("prometheus_client", reason="the served roles need the extra `serve`")
    from engines_lab import Engines

    folder = write_sentence(tmp_path / "model", ["cls", "max"], dense=LAYERS[:1], settings=PROMPT,
                            pooling={"include_prompt": False}, limits={"max_seq_length": 20})
    with Engines(tmp_path / "served", folder) as engines:
        engines.ready()
        with engines.client() as model:
            out = model.infer(TEXTS)
            assert model.public.inputs.longest == 20
    np.testing.assert_allclose(out.embeddings, plain_bert(folder, TEXTS).embeddings, **SECURE)
    np.testing.assert_allclose(np.linalg.norm(out.embeddings, axis=1), 1.0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", ["xlm-roberta", "roberta", "distilbert"])
def test_folders_of_other_families(case: str, tmp_path: Path) -> None:
    """Mean and unit length, as multilingual encoders have; a first token; RoBERTa's limit of a text."""
    sizes: dict[str, Any] = {"hidden_size": 9, "num_hidden_layers": 1, "num_attention_heads": 3,
                             "intermediate_size": 13, "max_position_embeddings": 24}
    bytewise = sizes | {"vocab_size": WORDS, "type_vocab_size": 1, "tokenizer": write_bytes}
    name, entries, ways, unit = {
        "xlm-roberta": ("XLMRobertaModel", bytewise, ["mean"], True),
        "roberta": ("RobertaForMaskedLM", bytewise, ["cls", "max"], False),
        "distilbert": ("DistilBertModel", {"dim": 9, "n_layers": 1, "n_heads": 3, "hidden_dim": 13,
                                           "max_position_embeddings": 24}, ["cls"], True)}[case]
    folder = add_modules(save(tmp_path, name, **entries), ways, unit=unit, limits={"max_seq_length": 20})
    expected = wanted(folder, ways=ways, unit=unit, limit=20)
    np.testing.assert_allclose(plain_bert(folder, TEXTS, truncation=True).embeddings, expected, rtol=0.0, atol=1e-6)
    with SecureModel.from_pretrained(folder, backend="numpy", output="head", truncation=True) as model:
        out = model(TEXTS)
    np.testing.assert_allclose(out.embeddings, expected, **SECURE)
    assert out.last_hidden_state is None and ModelFolder(folder).architecture.inputs.longest == 20


def test_modules_stand_behind_any_family(path: Path, tmp_path: Path) -> None:
    """An encoder of an installed package, which knows nothing of them."""
    folder = write_sentence(tmp_path / "toy", ["max", "cls"], unit=False)
    write_toy(folder, "ToyModel")
    hidden = [exact(folder, ids.ids.tolist())[0] for ids in ModelFolder(folder).tokenizer.rows(TEXTS)]
    expected = [pooled(x, np.ones(len(x), int), ["cls", "max"]) for x in hidden]
    np.testing.assert_allclose(plain_bert(folder, TEXTS).embeddings, expected, **EXACT)
    with SecureModel.from_pretrained(folder, backend="numpy") as model:
        np.testing.assert_allclose(model(TEXTS).embeddings, expected, **SECURE)
