"""RoBERTa, CamemBERT and XLM-RoBERTa against transformers' own classes: positions, padding, heads and tokenizers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bytes_lab import MASK, PAD, SENTENCES, WORDS, write_bytes
from families_lab import matches, refuses, save, tokens

from secformer.models.data.batch import blind_batch
from secformer.models.families.folder import ModelFolder
from secformer.models.families.heads import Head
from secformer.models.families.roberta import Camembert, Roberta, XLMRoberta
from secformer.models.run.local import SecureModel, plain_bert
from secformer.models.run.tasks import AnswerSpan, Entities, FilledMasks
from secformer.mpc.errors import InputError, ModelError

ODD: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 15, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 17,
    "max_position_embeddings": 35, "type_vocab_size": 1, "tokenizer": write_bytes}
NAMES = ("O", "B-PER", "I-PER", "LOC")
pytestmark = pytest.mark.filterwarnings("ignore")


def given(**more: Any) -> dict[str, np.ndarray]:
    return tokens(WORDS, pad=PAD, **more)


@pytest.mark.parametrize("name", Roberta.classes)
def test_every_class_against_transformers(name: str, tmp_path: Path) -> None:
    out = matches(save(tmp_path, name, **ODD), name, given(), embedding="client" if "Token" in name else "private")
    assert not any("not used" in note for note in out.notes)


@pytest.mark.parametrize("family", [Camembert, XLMRoberta])
def test_the_relatives_classes(family: type[Roberta], tmp_path: Path) -> None:
    for name, head in family.classes.items():
        matches(save(tmp_path / name, name, **ODD), name, given(), secure=head is Head.ENCODER)


def test_outlier_channels_and_sharp_attention(tmp_path: Path) -> None:
    name = "RobertaForSequenceClassification"
    matches(save(tmp_path, name, outlier=20.0, sharp=3.0, **ODD | {"num_hidden_layers": 1}), name, given())


# ---- positions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", [0, 4])
def test_positions_begin_behind_the_padding_tokens_id(pad: int, tmp_path: Path) -> None:
    folder = save(tmp_path, "RobertaModel", **ODD | {"tokenizer": False, "pad_token_id": pad})
    matches(folder, "RobertaModel", tokens(WORDS, pad=pad), secure=False)
    matches(folder, "RobertaModel", {key: rows[:1] for key, rows in tokens(WORDS, longest=34 - pad).items()},
            secure=False)
    with pytest.raises(InputError, match=f"{35 - pad} tokens; this model takes at most {34 - pad}"):
        plain_bert(folder, {"input_ids": [[7] * (35 - pad)]})


def test_parties_find_the_positions_in_the_mask_alone(tmp_path: Path) -> None:
    found = ModelFolder(save(tmp_path, "RobertaModel", **ODD)).architecture
    assert isinstance(found, Roberta) and found.inputs.longest == 33
    batch = blind_batch(np.array([4, 5]), np.array([[1, 1, 1, 1, 0], [0, 0, 1, 0, 1]]))
    assert found.positions(batch).tolist() == [2, 3, 4, 5, PAD, PAD, 2, PAD, 3]


@pytest.mark.parametrize(("ids", "mask", "says"), [
    ([[0, 7, 2], [0, PAD, 2]], None, "text 1: token 1 is the padding token, but its attention_mask is 1"),
    ([[0, 7, 9, 2]], [[1, 0, 1, 1]], "token 1 has the attention_mask 0, but it is not the padding token"),
])
def test_a_mask_that_does_not_say_what_is_padding_is_refused(ids: Any, mask: Any, says: str, tmp_path: Path) -> None:
    texts = {"input_ids": ids} | ({"attention_mask": mask} if mask else {})
    with SecureModel.from_pretrained(save(tmp_path, "RobertaModel", **ODD)) as model:
        with pytest.raises(InputError, match=says):
            model(texts)
        with pytest.raises(InputError, match=r"text 0: token 3 is the padding token.*remove that token"):
            model("The <pad> cat")
        tail = {"input_ids": [[0, 7, 2, 9, PAD]], "attention_mask": [[1, 1, 1, 0, 0]]}
        assert model(tail).attention_mask.shape == (1, 3), "nothing that is attended to stands behind it"


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def test_names_that_old_checkpoints_have(tmp_path: Path) -> None:
    """The bias under both names, the buffer of positions, a pooler beside the head, gamma and beta."""
    from safetensors.numpy import load_file, save_file

    folder = save(tmp_path, "RobertaForMaskedLM", **ODD)
    wanted = plain_bert(folder, given()).logits
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
           for name, value in load_file(folder / "model.safetensors").items()}
    old |= {"roberta.embeddings.position_ids": np.arange(35)[None],
            "lm_head.decoder.weight": old["roberta.embeddings.word_embeddings.weight"]}
    old["lm_head.decoder.bias"] = old.pop("lm_head.bias")
    save_file(old, str(folder / "model.safetensors"))
    out = plain_bert(folder, given())
    np.testing.assert_array_equal(out.logits, wanted)
    assert not any("not used" in note for note in out.notes)


def test_a_head_of_its_own_words(tmp_path: Path) -> None:
    """Then the decoder has a bias of its own, beside one that nobody reads."""
    matches(save(tmp_path, "RobertaForMaskedLM", tie_word_embeddings=False, **ODD), "RobertaForMaskedLM", given(),
            secure=False)


def test_a_vocabulary_of_250002(tmp_path: Path) -> None:
    small = {"hidden_size": 4, "num_attention_heads": 2, "intermediate_size": 3, "num_hidden_layers": 1}
    folder = save(tmp_path, "XLMRobertaModel", **ODD | small | {"vocab_size": 250002})
    ids = np.array([[0, 250001, 130000, 2]])
    out = matches(folder, "XLMRobertaModel", {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    assert out.cost is not None


@pytest.mark.parametrize(("changes", "says"), [
    ({"is_decoder": True}, "is_decoder or add_cross_attention must be false"),
    ({"position_embedding_type": "relative_key"}, "position_embedding_type must be 'absolute'"),
    ({"pad_token_id": None}, "pad_token_id must be 0 to 33"),
    ({"pad_token_id": 34}, "pad_token_id must be 0 to 33"),
    ({"hidden_act": "tanh"}, "hidden_act must be one of"),
    ({"architectures": ["RobertaForMultipleChoice"]}, "Supported: type 'roberta' with RobertaModel"),
])
def test_variants_that_are_not_run(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    refuses(save(tmp_path, "RobertaModel", **ODD), changes, says)


def test_a_config_with_the_tensors_of_another_family(tmp_path: Path) -> None:
    folder = save(tmp_path, "RobertaModel", **ODD)
    save(tmp_path / "other", "DistilBertModel", vocab_size=WORDS, dim=15, n_heads=5, n_layers=2, hidden_dim=17)
    (tmp_path / "other/model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks tensor 'embeddings.token_type_embeddings.weight'.*not those of the "
                                         "architecture that config.json names"):
        plain_bert(folder, "a")


# ---- a byte-level tokenizer ------------------------------------------------------------------------------------------


def pipeline(task: str, folder: Path, **settings: Any) -> Any:
    pytest.importorskip("torch")
    from transformers import pipeline as make

    return make(task, model=str(folder), device="cpu", dtype="float64", **settings)


def test_masks_are_filled_as_by_the_pipeline(tmp_path: Path) -> None:
    folder = save(tmp_path, "RobertaForMaskedLM", **ODD)
    texts, theirs = ["The <mask> sat on a <mask>.", "<mask>"], pipeline("fill-mask", folder)
    out = plain_bert(folder, texts)
    for text, answer in zip(texts, out.answers or (), strict=True):
        wanted = theirs(text)
        wanted = [wanted] if isinstance(wanted[0], dict) else wanted
        assert isinstance(answer, FilledMasks) and len(answer.masks) == len(wanted)
        for mask, words in zip(answer.masks, wanted, strict=True):
            assert text[mask.start : mask.end] == "<mask>", "without the space before it"
            assert [(w.word, w.id) for w in mask.words] == [(w["token_str"], w["token"]) for w in words]
            assert np.allclose([w.probability for w in mask.words], [w["score"] for w in words], atol=1e-6)
    (row,) = ModelFolder(folder).tokenizer.rows("The <mask> sat")
    assert row.ids.tolist().count(MASK) == 1


def test_entities_are_those_of_the_pipeline(tmp_path: Path) -> None:
    name = "RobertaForTokenClassification"
    folder = save(tmp_path, name, **ODD | {"id2label": dict(enumerate(NAMES)), "labels": 4})
    texts = [*SENTENCES, "  Zoë ran — “to” 東京", ""]
    theirs, out = pipeline("token-classification", folder, aggregation_strategy="simple"), plain_bert(folder, texts)
    found = 0
    for text, answer in zip(texts, out.answers or (), strict=True):
        assert isinstance(answer, Entities)
        wanted = theirs(text) if text else []
        assert [(e.label, e.start, e.end) for e in answer.entities] == [
            (e["entity_group"], e["start"], e["end"]) for e in wanted]
        assert all(e.text == text[e.start : e.end] for e in answer.entities)
        found += len(wanted)
    assert found >= 5, "the texts test little"


def test_pairs_have_no_segments(tmp_path: Path) -> None:
    """Both texts stand in one segment; the answer is found in the second, in whole words."""
    pytest.importorskip("torch")
    from transformers import AutoTokenizer

    name = "RobertaForQuestionAnswering"
    folder = save(tmp_path, name, **ODD)
    tokenizer, pair = ModelFolder(folder).tokenizer, ("Was it bad?", SENTENCES[0])
    assert tokenizer.takes_pairs
    read = tokenizer.read([pair])
    theirs = AutoTokenizer.from_pretrained(str(folder))(*pair)
    assert read.rows[0].ids.tolist() == theirs["input_ids"] and "token_type_ids" not in theirs
    assert read.places is not None and set(read.places[0].part.tolist()) == {-1, 0, 1}
    with SecureModel.from_pretrained(folder, backend="numpy") as model:
        (mine,) = model([pair]).answers or ()
    (answer,) = plain_bert(folder, [pair]).answers or ()
    assert isinstance(mine, AnswerSpan) and isinstance(answer, AnswerSpan)
    assert replace(mine, score=0.0) == replace(answer, score=0.0) and abs(mine.score - answer.score) < 1e-3
    assert answer.text and pair[1][answer.start : answer.end] == answer.text
