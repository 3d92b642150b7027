"""Tasks by name: compared with transformers' pipelines on tiny models, in plaintext and on shares; and at the edges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import VOCAB, config, tensors, write_checkpoint
from runs_lab import CPU, folder_of
from sentence_lab import encoded, write_sentence

from secformer.models.data.tokenizer import Tokenizer
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import FILE, measure
from secformer.models.run.helpers import Filled, Helpers, Label, Ranked
from secformer.models.run.local import PlainModel, SecureModel, plain_bert, plain_model, reference, secure_bert
from secformer.models.run.tasks import AnswerSpan, Entity
from secformer.mpc.errors import InputError, ModelError, SettingsError, Untrusted

NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC")
KINDS: dict[str, dict[str, Any]] = {
    "encoder": {"architecture": "BertModel"},
    "classes": {"architecture": "BertForSequenceClassification", "labels": 4},
    "multi": {"architecture": "BertForSequenceClassification", "problem_type": "multi_label_classification"},
    "one": {"architecture": "BertForSequenceClassification", "labels": 1},
    "regression": {"architecture": "BertForSequenceClassification", "labels": 1, "problem_type": "regression"},
    "numbers": {"architecture": "BertForSequenceClassification", "labels": 2, "problem_type": "regression"},
    "token": {"architecture": "BertForTokenClassification", "id2label": {str(i): n for i, n in enumerate(NAMES)}},
    "question": {"architecture": "BertForQuestionAnswering"},
    "masked": {"architecture": "BertForMaskedLM"},
    "pretraining": {"architecture": "BertForPreTraining"},
    "next": {"architecture": "BertForNextSentencePrediction"},
}
CLASSIFIERS = ("classes", "multi", "one", "regression", "numbers")
TEXTS = ["The CAT sat on the mat, and a dog ran!", "It was very good.", "cats", "élan: the  dogs   sat badly", ""]
MASKED = ["The cat [MASK] on it .", "[MASK]", "a  [MASK][MASK] élan", "not a [MASK] film!"]
DOCUMENTS = ["the cat sat", "a dog", "", "a very good film , not a bad one", "the cat sat", "it was: élan"]
QUESTIONS = ["who sat?", "what was it", "the cat?", "is it not a very good film or is it a bad one, and who was it"]
CONTEXTS = ["The CAT sat on the mat, and a dog ran.", "it was a very good film", "cats", "a dog"]
NEAR = {"plain": 1e-6, "shares": 1e-3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a kind, with its range profile, made when it is first asked for."""
    base = tmp_path_factory.mktemp("kinds")

    def folder(kind: str) -> Path:
        path = base / kind
        if not path.exists():
            folder_of(path, seed=4, scale=0.4, num_hidden_layers=1, **KINDS[kind])
            measure(ModelFolder(path)).save(path / FILE)
        return path

    return folder


@pytest.fixture(scope="module")
def models(folders: Callable[[str], Path]) -> Any:
    """The model of a kind: its exact plaintext, or itself on shares."""
    made: dict[tuple[str, str], Any] = {}

    def model(kind: str, world: str = "plain") -> Helpers:
        if (kind, world) not in made:
            path = folders(kind)
            made[kind, world] = (reference(ModelFolder(path)) if world == "plain"
                                 else SecureModel.from_pretrained(path, **CPU))
        return made[kind, world]

    yield model
    for each in made.values():
        if isinstance(each, SecureModel):
            each.close()


def pipeline(task: str, folder: Path, **options: Any) -> Any:
    """The pipeline, in float64."""
    pytest.importorskip("torch")
    import transformers

    pipe = transformers.pipeline(task, model=str(folder), tokenizer=str(folder), device="cpu", **options)
    pipe.model.double()
    return pipe


# ---- as users know them ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "world"), [*((kind, "plain") for kind in CLASSIFIERS), ("classes", "shares"),
                                             ("multi", "shares"), ("one", "shares")])
def test_labels_are_those_of_the_pipeline(kind: str, world: str, models: Any, folders: Any) -> None:
    theirs, model = pipeline("text-classification", folders(kind)), models(kind, world)
    wanted = theirs(TEXTS)
    mine = model.classify(TEXTS)
    assert [each.label for each in mine] == [each["label"] for each in wanted]
    assert np.allclose([each.score for each in mine], [each["score"] for each in wanted], rtol=0, atol=NEAR[world])
    if world == "plain":
        size = len(model.architecture.spec.labels)
        for top_k in (None, 2, 99):
            all_mine, all_wanted = model.classify(TEXTS[:2], top_k=top_k), theirs(TEXTS[:2], top_k=top_k)
            assert [len(each) for each in all_mine] == [min(size, top_k or size)] * 2
            for some, other in zip(all_mine, all_wanted, strict=True):
                assert [each.label for each in some] == [each["label"] for each in other]
                assert np.allclose([x.score for x in some], [x["score"] for x in other], rtol=0, atol=NEAR[world])
        (pair,) = theirs([{"text": "the cat", "text_pair": "a dog"}])
        (mine,) = model.classify([("the cat", "a dog")])
        assert mine.label == pair["label"] and abs(mine.score - pair["score"]) < NEAR[world]
        assert model.classify(TEXTS[0]) == model.classify(TEXTS[:1])[0]
        assert model.classify(TEXTS[0], top_k=None) == model.classify(TEXTS[:1], top_k=None)[0]
        ids = model.classify({"input_ids": [2, 5, 3]})
        assert len(ids) == 1 and isinstance(ids[0], Label)


@pytest.mark.parametrize("world", ["plain", "shares"])
def test_entities_are_those_of_the_pipeline(world: str, models: Any, folders: Any) -> None:
    wanted = pipeline("token-classification", folders("token"), aggregation_strategy="simple")(TEXTS)
    mine = models("token", world).entities(TEXTS)
    for text, some, other in zip(TEXTS, mine, wanted, strict=True):
        assert [(e.label, e.start, e.end) for e in some] == [(e["entity_group"], e["start"], e["end"]) for e in other]
        assert [e.text for e in some] == [text[e["start"] : e["end"]] for e in other]
        if text.islower() and text.isascii():  # the pipeline's words are what the tokenizer makes of the text
            assert [e.text.split() for e in some] == [e["word"].split() for e in other]
        assert np.allclose([e.score for e in some], [e["score"] for e in other], rtol=0, atol=NEAR[world])
    assert sum(map(len, mine)) >= 4 and mine[-1] == []
    if world == "plain":
        assert models("token").entities(TEXTS[0]) == models("token").entities(TEXTS[:1])[0]
        (pair,) = models("token").entities([("the cat", "dog")])
        assert all(isinstance(e, Entity) and e.part in (0, 1) for e in pair)


@pytest.mark.parametrize(("kind", "world"), [("masked", "plain"), ("masked", "shares"), ("pretraining", "shares")])
def test_masks_are_filled_as_by_the_pipeline(kind: str, world: str, models: Any, folders: Any) -> None:
    model, found = models(kind, world), models(kind, world).fill_mask(MASKED, top_k=3)
    if kind == "masked":
        theirs = pipeline("fill-mask", folders(kind))
        wanted = [theirs(text, top_k=3) for text in MASKED]
    else:
        wanted = [[plain] if isinstance(plain[0], list) else plain for plain in models(kind).fill_mask(MASKED, 3)]
        wanted = [[vars(w) for w in words] for words in wanted if not isinstance(words[0], list)]
        found = [words for words in found if not isinstance(words[0], list)]
        assert len(found) == len(MASKED) - 1
    for some, other in zip(found, wanted, strict=True):
        lists = [(some, other)] if isinstance(some[0], Filled) else list(zip(some, other, strict=True))
        for words, theirs_words in lists:
            assert np.allclose([w.score for w in words], [w["score"] for w in theirs_words], rtol=0, atol=NEAR[world])
            if world == "plain":
                assert [vars(w).keys() for w in words] == [{"score", "token", "token_str", "sequence"}] * 3
                assert [(w.token, w.token_str, w.sequence) for w in words] == [
                    (w["token"], w["token_str"], w["sequence"]) for w in theirs_words]
    if world == "plain":
        assert isinstance(model.fill_mask(MASKED[0])[4], Filled) and len(model.fill_mask(MASKED[0])) == 5
        assert [len(words) for words in model.fill_mask(MASKED[2], top_k=2)] == [2, 2]
        assert len(model.fill_mask("[MASK]", top_k=1000)) == len(model.fill_mask("[MASK]", top_k=None)) == len(VOCAB)


@pytest.mark.parametrize("world", ["plain", "shares"])
def test_answers_are_spans_of_the_models_logits(world: str, models: Any, folders: Any) -> None:
    """The pipeline "question-answering" is gone from new versions; its choice of a span lives on in another one."""
    torch = pytest.importorskip("torch")
    import transformers
    from transformers.pipelines.document_question_answering import select_starts_ends

    path = folders("question")
    theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(path).double()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    mine = models("question", world).answer(QUESTIONS, CONTEXTS)
    assert len(mine) == len(QUESTIONS)
    for question, context, answer in zip(QUESTIONS, CONTEXTS, mine, strict=True):
        encoded = tokenizer(question, context, return_tensors="pt")
        outside = np.array([[int(part != 1) for part in encoded.sequence_ids(0)]])
        outside[0, 0] = 0
        with torch.no_grad():
            logits = theirs(**encoded)
        _, _, scores, _ = select_starts_ends(logits.start_logits.numpy(), logits.end_logits.numpy(), outside,
                                             encoded["attention_mask"].numpy())
        assert isinstance(answer, AnswerSpan) and abs(answer.score - float(scores[0])) < NEAR[world]
        assert answer.text == context[answer.start : answer.end] != "" and answer.note == ""


def test_questions_and_contexts_one_for_all(models: Any) -> None:
    model = models("question")
    alone = model.answer(QUESTIONS[0], CONTEXTS[0])
    assert isinstance(alone, AnswerSpan)
    for questions, contexts in ((QUESTIONS[:1], CONTEXTS[:1]), (QUESTIONS[0], tuple(CONTEXTS[:1])),
                                (QUESTIONS[:1], CONTEXTS[0])):
        (same,) = model.answer(questions, contexts)
        assert same == alone
    many = model.answer(QUESTIONS[0], CONTEXTS)
    assert len(many) == len(CONTEXTS) and many[0].text == alone.text
    assert len(model.answer(QUESTIONS[:3], CONTEXTS[0])) == 3


@pytest.mark.parametrize("world", ["plain", "shares"])
def test_documents_are_ranked_by_the_sigmoid_of_their_logits(world: str, models: Any) -> None:
    """As sentence-transformers' CrossEncoder.rank: best first, equal scores in their order."""
    model = models("one", world)
    logits = plain_model(models("one").folder.path, [("who sat?", each) for each in DOCUMENTS]).logits[:, 0]
    scores = 1 / (1 + np.exp(-logits))
    found = model.rerank("who sat?", DOCUMENTS)
    assert sorted(each.corpus_id for each in found) == list(range(len(DOCUMENTS)))
    assert all(each.text == DOCUMENTS[each.corpus_id] for each in found)
    assert np.allclose([each.score for each in found], scores[[each.corpus_id for each in found]], rtol=0,
                       atol=NEAR[world])
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    if world == "plain":
        assert [each.corpus_id for each in found] == sorted(range(len(DOCUMENTS)), key=lambda i: -scores[i])
        assert model.rerank("who sat?", tuple(DOCUMENTS), 2) == found[:2] == model.rerank("who sat?", DOCUMENTS, 99)[:2]
        assert found[0] == Ranked(found[0].corpus_id, found[0].score, DOCUMENTS[found[0].corpus_id])


def test_one_call_ranks_all_documents(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that batches form, with one progress for all."""
    model, told, batches = models("one", "shares"), [], []
    real = model._ask
    monkeypatch.setattr(model, "_ask", lambda batch, tell: batches.append(batch.size) or real(batch, tell))
    model.rerank("who?", ["the cat"] * 20, progress=lambda *some: told.append(some))
    assert batches == [20] and told


@pytest.mark.parametrize("world", ["plain", "shares"])
def test_embeddings_are_unit_means_of_hidden_states(world: str, models: Any) -> None:
    model = models("encoder", world)
    out = plain_model(models("encoder").folder.path, TEXTS)
    weights = out.attention_mask[:, :, None]
    means = (out.last_hidden_state * weights).sum(1) / weights.sum(1)
    wanted = means / np.linalg.norm(means, axis=1, keepdims=True)
    found = model.embed(TEXTS)
    assert found.shape == wanted.shape and np.allclose(found, wanted, rtol=0, atol=NEAR[world])
    if world == "plain":
        assert model.embed(TEXTS[0]).shape == wanted.shape[1:]
        assert np.allclose(model.embed(TEXTS[0]), wanted[0], rtol=0, atol=NEAR[world])
        assert model.embed({"input_ids": [[2, 5, 3], [2, 3, 0]]}).shape == (2, wanted.shape[1])


def test_embeddings_of_modules_and_nothing_else_revealed(tmp_path: Path) -> None:
    """What SentenceTransformer.encode gives; with output="head" the client learns the embedding alone."""
    pytest.importorskip("torch")
    dense = ((5, "activation.Tanh", True),)
    folder = write_sentence(tmp_path, ("cls", "mean"), dense=dense, num_hidden_layers=1)
    wanted = encoded(folder, TEXTS, ("cls", "mean"), dense=dense)
    assert np.allclose(reference(ModelFolder(folder)).embed(TEXTS), wanted, rtol=0, atol=NEAR["plain"])
    with SecureModel.from_pretrained(folder, output="head", **CPU) as model:
        assert np.allclose(model.embed(TEXTS), wanted, rtol=0, atol=NEAR["shares"])
        assert model(TEXTS[0]).last_hidden_state is None


def test_the_names_of_the_first_family_are_the_same_functions() -> None:
    from secformer import plain_bert as plain
    from secformer import secure_bert as secure
    from secformer import secure_model

    assert secure is secure_bert is secure_model and plain is plain_bert is plain_model


# ---- models, texts and numbers that do not fit -----------------------------------------------------------------------

CALLS: dict[str, tuple[Callable[[Any], Any], set[str], str]] = {
    "embed": (lambda model: model.embed("cat"), {"encoder"}, "BertModel"),
    "rerank": (lambda model: model.rerank("cat", ["dog"]), {"one", "regression"}, "BertForSequenceClassification"),
    "classify": (lambda model: model.classify("cat"), set(CLASSIFIERS), "BertForSequenceClassification"),
    "entities": (lambda model: model.entities("cat"), {"token"}, "BertForTokenClassification"),
    "fill_mask": (lambda model: model.fill_mask("[MASK]"), {"masked", "pretraining"},
                  "BertForMaskedLM or BertForPreTraining"),
    "answer": (lambda model: model.answer("cat", "dog"), {"question"}, "BertForQuestionAnswering"),
}


@pytest.mark.parametrize("task", CALLS)
def test_a_head_that_does_not_answer_is_refused_before_anything_runs(task: str, models: Any,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    call, fitting, classes = CALLS[task]
    monkeypatch.setattr(PlainModel, "_ask", lambda *_: pytest.fail("the model ran"))
    for kind in KINDS.keys() - fitting:
        with pytest.raises(ModelError, match=f"{task} needs a .*{classes}") as told:
            call(models(kind))
        assert ("so call" in str(told.value)) != (task == "rerank" and kind in CALLS["classify"][1])
    monkeypatch.undo()
    for kind in fitting:
        call(models(kind))


def test_rerank_says_how_many_labels_there_are(models: Any) -> None:
    with pytest.raises(ModelError, match=r"rerank .* with one output.*this model has 4 labels; call classify"):
        models("classes").rerank("q", ["d"])


@pytest.mark.parametrize("top_k", [0, -1, True, 2.0, "5"])
def test_bad_counts(top_k: Any, models: Any) -> None:
    for call in (lambda: models("one").rerank("q", ["d"], top_k), lambda: models("classes").classify("cat", top_k),
                 lambda: models("masked").fill_mask("[MASK]", top_k)):
        with pytest.raises(SettingsError, match="top_k must be a positive whole number, or None for all"):
            call()


@pytest.mark.parametrize(("kind", "call", "says"), [
    ("encoder", lambda m: m.embed([]), "list of texts is empty"),
    ("classes", lambda m: m.classify([]), "list of texts is empty"),
    ("token", lambda m: m.entities([]), "list of texts is empty"),
    ("masked", lambda m: m.fill_mask([]), "list of texts is empty"),
    ("question", lambda m: m.answer([], []), "no context, or no question"),
    ("question", lambda m: m.answer([], "the cat"), "no context, or no question"),
    ("question", lambda m: m.answer("who?", []), "no context, or no question"),
    ("one", lambda m: m.rerank("who?", []), "no document, or no query"),
    ("one", lambda m: m.rerank("who?", "the cat"), "documents must be a list of str, got str"),
    ("one", lambda m: m.rerank(["who?"], ["the cat"]), "the query must be a str, got list"),
    ("one", lambda m: m.rerank("who?", ["cat", 5]), r"document 1 .* got str and int"),
    ("one", lambda m: m.rerank("who?", ["cat", "a\udc00"]), r"text 1, the second of its pair, is not valid Unicode"),
    ("one", lambda m: m.rerank("who?", ["cat", "dog " * 60]), r"text 1 has 6\d tokens"),
    ("question", lambda m: m.answer(["who?", "what?"], ["cat"]), "2 questions and 1 contexts"),
    ("question", lambda m: m.answer("who?", None), "context must be a list of str, got NoneType"),
    ("question", lambda m: m.answer(["who?", None], "cat"), r"context 1 .* got NoneType and str"),
    ("question", lambda m: m.answer("who?", ["cat", ""]), "context 1 has no token"),
    ("masked", lambda m: m.fill_mask(["[MASK]", "the cat"]), r"text 1 has no \[MASK\]; put one"),
    ("masked", lambda m: m.fill_mask({"input_ids": [[2, 4, 3]]}), "fill_mask needs texts; token ids"),
    ("token", lambda m: m.entities({"input_ids": [[2, 4, 3]]}), "entities needs texts; token ids"),
])
def test_bad_texts_are_refused_before_anything_runs(kind: str, call: Any, says: str, models: Any,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlainModel, "_ask", lambda *_: pytest.fail("the model ran"))
    with pytest.raises(InputError, match=says):
        call(models(kind))


def test_a_mask_that_truncation_cuts_off(folders: Any) -> None:
    model = reference(ModelFolder(folders("masked")), truncation=True)
    with pytest.raises(InputError, match=r"text 0 has no \[MASK\] \(truncation cut it off\)"):
        model.fill_mask("cat " * 40 + "[MASK]")
    assert len(model.fill_mask("[MASK]" + " cat" * 40)) == 5


def test_a_tokenizer_without_a_mask(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "mask", None)
    with pytest.raises(ModelError, match="has no mask token"):
        models("masked").fill_mask("a [MASK]")


def test_a_single_text_for_a_model_of_pairs_is_noted(models: Any) -> None:
    model = models("next")
    assert [note for note in model("the cat").notes if "it needs pairs" in note]
    assert not [note for out in (model([("the cat", "a dog")]), model({"input_ids": [[2, 5, 3]]}))
                for note in out.notes if "pairs" in note]


# ---- texts that cannot be trusted ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(folders: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Models in which the word "film" leaves every measured range."""
    base = tmp_path_factory.mktemp("wide")

    def folder(kind: str) -> Path:
        path = base / kind
        changes = KINDS[kind] | {"num_hidden_layers": 1}
        found = tensors(config(**changes), 4, 0.4)
        found["embeddings.LayerNorm.weight"][:] = 1.0
        found["embeddings.word_embeddings.weight"][VOCAB.index("film")] *= 40.0
        prefix = "" if kind == "encoder" else "bert."
        write_checkpoint(path, prefix=prefix, weights=found, **changes)
        samples = [("who?", "the cat"), ("who?", "a dog ran"), ("the cat [MASK]", "a")]
        measure(ModelFolder(path), samples).save(path / FILE)
        return path

    return folder


BAD, FINE = "film film film", "the cat"
EACH: dict[str, tuple[Callable[[Any], Any], Callable[[Any], bool]]] = {
    "encoder": (lambda m: list(m.embed([FINE, BAD])), lambda x: bool(np.isnan(x).all())),
    "classes": (lambda m: m.classify([FINE, BAD]), lambda x: x is None),
    "token": (lambda m: m.entities([FINE, BAD]), lambda x: x is None),
    "masked": (lambda m: m.fill_mask([FINE + " [MASK]", BAD + " [MASK]"]), lambda x: x is None),
    "question": (lambda m: m.answer("who?", [FINE, BAD]), lambda x: x is None),
    "one": (lambda m: m.rerank("who?", [FINE, BAD], 1), lambda x: bool(np.isnan(x.score))),
}


@pytest.mark.parametrize("kind", EACH)
def test_a_text_that_cannot_be_trusted_never_gives_a_plain_result(kind: str, wide: Any) -> None:
    call, lost = EACH[kind]
    path = wide(kind)
    with pytest.raises(Untrusted, match=r"text 1 cannot be trusted .*guard='nan' \(--guard nan on the command line\)"):
        call(PlainModel.from_pretrained(path))
    with pytest.raises(Untrusted, match=r"^text 1 cannot be trusted"):
        call(PlainModel.from_pretrained(path, guard="raise"))
    found = call(PlainModel.from_pretrained(path, guard="nan"))
    assert [lost(each) for each in found] == [False, True]
    assert not any(lost(each) for each in call(PlainModel.from_pretrained(path, guard="off")))


def test_the_guard_on_shares(wide: Any) -> None:
    path = wide("one")
    with SecureModel.from_pretrained(path, guard="nan", **CPU) as model:
        found = model.rerank("who?", [BAD, FINE, "a dog ran"], top_k=1)
    assert [each.corpus_id for each in found][1:] == [0] and np.isnan(found[-1].score) and not np.isnan(found[0].score)
