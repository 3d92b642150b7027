"""What answers say: words for masks, spans, entities. Compared with `transformers`' own pipelines, and at the edges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import VOCAB, write_checkpoint
from runs_lab import CPU

from secformer.models.data.batch import Row
from secformer.models.data.tokenizer import Places, Tokenizer
from secformer.models.families.folder import ModelFolder
from secformer.models.run.local import plain_bert, secure_bert
from secformer.models.run.tasks import (
    LONGEST,
    AnswerSpan,
    Entities,
    Entity,
    FilledMasks,
    answer_span,
    entities,
    fill_masks,
)

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC")
TEXTS = ["The CAT sat on the mat, and a dog ran!", "It was very good.", "cats", "élan: the  dogs   were sitting badly",
         "film film film the the not"]
MASKED = ["The cat [MASK] on the [MASK] .", "[MASK]", "not a [MASK] film!", "a  [MASK][MASK]"]
PAIRS = [("Who sat?", "The CAT sat on the mat, and a dog ran."), ("what", "it was a very good film, not a bad one"),
         ("the cat?", "cats"), ("", "a dog ran on the mat " * 3)]
NEAR = 1e-5  # the pipelines compute in float32


def folder_of(path: Path, architecture: str, seed: int, **changes: Any) -> Path:
    return write_checkpoint(path, architecture, prefix="bert.", seed=seed, scale=0.7, **changes)


def pipeline(task: str, folder: Path, **options: Any) -> Any:
    pytest.importorskip("torch")
    import transformers

    return transformers.pipeline(task, model=str(folder), tokenizer=str(folder), device="cpu", **options)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("masked"), "BertForMaskedLM", 1)


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("question"), "BertForQuestionAnswering", 2)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("token"), "BertForTokenClassification", 3,
                     id2label={str(i): name for i, name in enumerate(LABELS)})


@pytest.fixture(scope="module")
def tokenizer(masked: Path) -> Tokenizer:
    return ModelFolder(masked).tokenizer


# ---- as transformers' pipelines --------------------------------------------------------------------------------------


def test_masks_are_filled_as_by_the_pipeline(masked: Path) -> None:
    theirs = pipeline("fill-mask", masked, top_k=5)
    out = plain_bert(masked, MASKED)
    assert out.answers is not None and len(out.answers) == len(MASKED)
    for text, answer in zip(MASKED, out.answers, strict=True):
        wanted = theirs(text)
        wanted = [wanted] if isinstance(wanted[0], dict) else wanted
        assert isinstance(answer, FilledMasks) and answer.note == ""
        assert len(answer.masks) == len(wanted) == text.count("[MASK]")
        for mask, words in zip(answer.masks, wanted, strict=True):
            assert text[mask.start : mask.end] == "[MASK]" and mask.part == 0
            assert [(w.word, w.id) for w in mask.words] == [(w["token_str"], w["token"]) for w in words]
            assert np.abs([w.probability for w in mask.words] - np.array([w["score"] for w in words])).max() < NEAR


def test_entities_are_those_of_the_pipeline(token: Path) -> None:
    theirs = pipeline("token-classification", token, aggregation_strategy="simple")
    out = plain_bert(token, TEXTS)
    assert out.answers is not None
    found = 0
    for text, answer in zip(TEXTS, out.answers, strict=True):
        assert isinstance(answer, Entities)
        wanted = theirs(text)
        assert [(e.label, e.start, e.end) for e in answer.entities] == [
            (e["entity_group"], e["start"], e["end"]) for e in wanted]
        assert all(e.text == text[e.start : e.end] and e.part == 0 for e in answer.entities)
        assert np.allclose([e.score for e in answer.entities], [e["score"] for e in wanted], atol=NEAR)
        found += len(wanted)
    assert found >= 5, "the texts test little"


@pytest.mark.parametrize("seed", range(20))
def test_random_entities_are_grouped_as_by_the_pipeline(seed: int, token: Path) -> None:
    """Labels of all kinds side by side, more than a model of random weights gives."""
    pipe = pipeline("token-classification", token, aggregation_strategy="simple")
    rng = np.random.default_rng(seed)
    names = list(LABELS) if seed % 2 else ["O", "S-PER", "B-O", "B-PER", "I-PER", "NON-O"]
    pipe.model.config.id2label = dict(enumerate(names))
    text = TEXTS[seed % len(TEXTS)]
    tokenizer = ModelFolder(token).tokenizer
    read = tokenizer.read(text)
    (row,), (places,) = read.rows, read.places or []
    logits = rng.normal(0, 1, (len(row), len(names))).astype(np.float32)
    logits += rng.permutation(len(names)) == 0  # one label is more frequent
    import torch

    inputs = {"input_ids": torch.tensor(row.ids)[None], "offset_mapping": torch.tensor(places.spans)[None],
              "special_tokens_mask": torch.tensor(places.part < 0)[None], "logits": torch.tensor(logits)[None],
              "sentence": text}
    from transformers.pipelines.token_classification import AggregationStrategy

    wanted = pipe.postprocess([inputs], aggregation_strategy=AggregationStrategy.SIMPLE)
    mine = entities(logits.astype(np.float64), row, places, tokenizer, names).entities
    assert [(e.label, e.start, e.end) for e in mine] == [(e["entity_group"], int(e["start"]), int(e["end"]))
                                                         for e in wanted]
    assert np.allclose([e.score for e in mine], [e["score"] for e in wanted], atol=NEAR)


@pytest.mark.parametrize("seed", range(12))
def test_spans_are_those_of_the_pipelines_arithmetic(seed: int, question: Path) -> None:
    """The pipeline "question-answering" is gone from new versions; its choice of a span lives on in another one."""
    pytest.importorskip("torch")
    from transformers.pipelines.document_question_answering import select_starts_ends

    tokenizer = ModelFolder(question).tokenizer
    pair = PAIRS[seed % len(PAIRS)]
    read = tokenizer.read([pair])
    (row,), (places,) = read.rows, read.places or []
    logits = np.random.default_rng(seed).normal(0, 2, (len(row), 2))
    outside = (places.part != 1).astype(np.int64)
    outside[0] = 0
    starts, ends, scores, _ = select_starts_ends(logits[None, :, 0].copy(), logits[None, :, 1].copy(), outside[None],
                                                 row.mask[None], top_k=1, max_answer_len=15)
    answer = answer_span(logits, row, places, tokenizer)
    assert abs(answer.score - float(scores[0])) < 1e-12 and answer.note == ""
    assert answer.start is not None and answer.end is not None and answer.text == pair[1][answer.start : answer.end]
    first, last = places.spans[starts[0], 0], places.spans[ends[0], 1]  # type: ignore[index]
    assert answer.start <= first < last <= answer.end
    whole = pair[1][answer.start : answer.end]
    assert not pair[1][: answer.start][-1:].isalnum() or not whole[0].isalnum(), "a word is cut at its start"
    assert not pair[1][answer.end :][:1].isalnum() or not whole[-1].isalnum(), "a word is cut at its end"
    assert (len(whole.split()) >= 1 and (first, last) == (answer.start, answer.end)) or "s" in whole


# ---- secure runs, batches, pairs, ids --------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "texts"), [("masked", MASKED), ("question", PAIRS), ("token", TEXTS),
                                             ("masked", [("the [MASK]", "a [MASK] film")]), ("token", PAIRS)])
def test_secure_answers_are_the_plaintext_models(kind: str, texts: Any, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    mine, theirs = secure_bert(folder, texts, batch_tokens=24, **CPU), plain_bert(folder, texts)
    assert mine.answers is not None and theirs.answers is not None and len(mine.answers) == len(texts)
    facts, wanted = mine.as_dict()["answers"], theirs.as_dict()["answers"]
    assert json.loads(json.dumps(facts)) == facts, "not plain"
    for a, b in zip(facts, wanted, strict=True):
        if kind == "masked":
            for x, y in zip(a["masks"], b["masks"], strict=True):
                assert [w["word"] for w in x["words"]][:1] == [w["word"] for w in y["words"]][:1]
                assert abs(x["words"][0]["probability"] - y["words"][0]["probability"]) < 2e-2
                assert (x["start"], x["end"], x["part"]) == (y["start"], y["end"], y["part"])
        elif kind == "question":
            assert abs(a["score"] - b["score"]) < 2e-2 and a["text"]
        else:
            assert [e["label"] for e in a["entities"]] == [e["label"] for e in b["entities"]]
    if kind == "masked" and not isinstance(texts[0], str):
        assert [m["part"] for m in facts[0]["masks"]] == [0, 1]
        assert [texts[0][m["part"]][m["start"] : m["end"]] for m in facts[0]["masks"]] == ["[MASK]"] * 2


def test_a_batch_says_what_each_text_alone_says(question: Path) -> None:
    together = plain_bert(question, PAIRS).answers
    assert together is not None
    for pair, answer in zip(PAIRS, together, strict=True):
        (alone,) = plain_bert(question, [pair]).answers or ()
        assert isinstance(alone, AnswerSpan) and isinstance(answer, AnswerSpan)
        assert (alone.text, alone.start, alone.end) == (answer.text, answer.start, answer.end)
        assert abs(alone.score - answer.score) < 1e-9


def test_token_ids_and_other_heads_have_none(masked: Path, tmp_path: Path) -> None:
    assert plain_bert(masked, {"input_ids": [[2, 4, 3]]}).answers is None
    for architecture in ("BertModel", "BertForSequenceClassification"):
        folder = write_checkpoint(tmp_path / architecture, architecture, prefix="bert."[: 5 * ("For" in architecture)])
        out = plain_bert(folder, "the cat")
        assert out.answers is None and "answers" not in out.as_dict()


# ---- edges -----------------------------------------------------------------------------------------------------------


def read_one(tokenizer: Tokenizer, text: Any) -> tuple[Row, Places]:
    read = tokenizer.read([text])
    assert read.places is not None
    return read.rows[0], read.places[0]


def test_a_text_without_a_mask_says_so(tokenizer: Tokenizer) -> None:
    row, places = read_one(tokenizer, "the cat")
    assert fill_masks(np.zeros((4, len(VOCAB))), row, places, tokenizer) == FilledMasks(
        (), "this text has no [MASK]; put one where a word is to be found")


def test_a_tokenizer_without_a_mask_says_so(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    row, places = read_one(tokenizer, "the cat")
    monkeypatch.setattr(Tokenizer, "mask", None)
    assert "has no mask token" in fill_masks(np.zeros((4, 8)), row, places, tokenizer).note


def test_a_small_vocabulary_and_ties(tokenizer: Tokenizer) -> None:
    row, places = read_one(tokenizer, "a [MASK]")
    (mask,) = fill_masks(np.zeros((4, 3)), row, places, tokenizer).masks
    assert [w.id for w in mask.words] == [0, 1, 2] and {w.probability for w in mask.words} == {1 / 3}


def spikes(row: Row, start: int, end: int, height: float = 30.0) -> np.ndarray:
    logits = np.zeros((len(row), 2))
    logits[start, 0] = logits[end, 1] = height
    return logits


def test_spans_stay_in_the_passage_in_order_and_short(tokenizer: Tokenizer) -> None:
    question, passage = "the cat", "a dog ran on the mat " * 4
    row, places = read_one(tokenizer, (question, passage))
    first = int(np.flatnonzero(places.part == 1)[0])

    def answer(start: int, end: int) -> AnswerSpan:
        return answer_span(spikes(row, start, end), row, places, tokenizer)

    exact = answer(first + 1, first + 2)
    assert (exact.text, exact.start, exact.end) == ("dog ran", 2, 9) and exact.score > 0.999
    longest = answer(first, first + LONGEST - 1)
    assert longest.text == passage[: longest.end] and len(longest.text.split()) == LONGEST and longest.score > 0.999
    assert answer(first, first + LONGEST).score < 1e-6, "an answer of more tokens is not allowed"
    assert answer(first + 3, first + 2).score < 1e-6, "an answer must not end before it starts"
    for outside in (0, 1, first - 1, len(row) - 1):
        found = answer(outside, outside)
        assert found.text and found.start is not None and places.texts[1][found.start : found.end] == found.text
    assert answer(0, 0).score < 1e-20, "a model that points at no answer gives a low score"
    assert answer(1, 1).score > 1e-6, "the question takes no part"


def test_answers_are_whole_words_of_the_text_as_it_was_typed(tokenizer: Tokenizer) -> None:
    row, places = read_one(tokenizer, ("the", "Cats  sat"))
    tokens = np.flatnonzero(places.part == 1)
    assert len(tokens) == 3  # cat ##s sat
    for start, end, text, at in ((0, 0, "Cats", 0), (1, 1, "Cats", 0), (1, 2, "Cats  sat", 0), (2, 2, "sat", 6)):
        found = answer_span(spikes(row, int(tokens[start]), int(tokens[end])), row, places, tokenizer)
        assert (found.text, found.start, found.end) == (text, at, at + len(text))


@pytest.mark.parametrize(("text", "says"), [("the cat", "give pairs: a question and its passage"),
                                            (("the cat", ""), "the passage has no token")])
def test_no_passage_no_answer(text: Any, says: str, tokenizer: Tokenizer) -> None:
    row, places = read_one(tokenizer, text)
    found = answer_span(np.zeros((len(row), 2)), row, places, tokenizer)
    assert (found.text, found.score, found.start, found.end) == ("", 0.0, None, None) and says in found.note


def tagged(tokenizer: Tokenizer, text: Any, *names: str) -> list[tuple[str, str, int]]:
    row, places = read_one(tokenizer, text)
    logits = np.zeros((len(row), len(LABELS)))
    logits[np.flatnonzero(places.part >= 0), [LABELS.index(name) for name in names]] = 20.0
    return [(e.label, e.text, e.part) for e in entities(logits, row, places, tokenizer, LABELS).entities]


def test_how_entities_begin_and_go_on(tokenizer: Tokenizer) -> None:
    text = "the cat sat"
    assert tagged(tokenizer, text, "B-PER", "I-PER", "O") == [("PER", "the cat", 0)]
    assert tagged(tokenizer, text, "B-PER", "B-PER", "I-PER") == [("PER", "the", 0), ("PER", "cat sat", 0)]
    assert tagged(tokenizer, text, "I-PER", "I-LOC", "B-LOC") == [
        ("PER", "the", 0), ("LOC", "cat", 0), ("LOC", "sat", 0)]
    assert tagged(tokenizer, text, "MISC", "MISC", "O") == [("MISC", "the cat", 0)]
    assert tagged(tokenizer, text, "O", "O", "O") == []
    assert tagged(tokenizer, "", ) == []
    assert tagged(tokenizer, "CATS sat", "B-LOC", "I-LOC", "O") == [("LOC", "CATS", 0)]


def test_entities_do_not_cross_from_one_text_of_a_pair_to_the_other(tokenizer: Tokenizer) -> None:
    assert tagged(tokenizer, ("the cat", "a dog"), "O", "B-PER", "I-PER", "I-PER") == [("PER", "cat", 0),
                                                                                     ("PER", "a dog", 1)]


def test_a_tokenizer_that_knows_no_characters(tokenizer: Tokenizer) -> None:
    """The text is then what the tokenizer makes of the tokens."""
    row, places = read_one(tokenizer, ("The", "Cats sat"))
    blind = Places(places.texts, places.part, places.word, None)
    tokens = np.flatnonzero(places.part == 1)
    found = answer_span(spikes(row, int(tokens[0]), int(tokens[1])), row, blind, tokenizer)
    assert (found.text, found.start, found.end) == ("cats", None, None)
    logits = np.zeros((len(row), 2))
    logits[tokens[2], 1] = 5.0
    (entity,) = entities(logits, row, blind, tokenizer, ("O", "X")).entities
    assert entity == Entity("X", "sat", entity.score, None, None, 1) and entity.score > 0.99


def test_nothing_of_the_text_is_in_a_repr(tokenizer: Tokenizer) -> None:
    _, places = read_one(tokenizer, "the cat")
    assert "cat" not in repr(places) and "array" not in repr(places)
