"""What a page is told of a model, what it says of answers, and the models that it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from core_lab import core, text_of, write_page
from sentence_lab import write_sentence

from secformer.models.data.batch import Batch
from secformer.models.data.tokenizer import Tokenizer
from secformer.models.families.program import GUARD
from secformer.models.run.gather import gather
from secformer.models.run.guard import named
from secformer.models.run.output import SecureOutput, assemble
from secformer.models.run.provisioning import write_shares
from secformer.models.run.public import PublicModel
from secformer.models.run.tasks import answers
from secformer.mpc.errors import ModelError
from secformer.mpc.fixed import encode
from secformer.mpc.meter import Cost
from secformer.page.model import page_model
from secformer.roles.halves import joined
from secformer.roles.messages import Answer, pack_answer

KINDS = {
    "BertForSequenceClassification": "labels", "BertModel": "embedding", "BertForTokenClassification": "tokens",
    "BertForMaskedLM": "tokens", "sentences": "embedding", "multi": "labels", "score": "labels"}
Clients = Callable[[str], Path]


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    """The clients' folder of a tiny model of a name in KINDS."""
    work = tmp_path_factory.mktemp("models")

    @cache
    def of(name: str) -> Path:
        folder, classifier = work / name, "BertForSequenceClassification"
        if name == "sentences":
            write_sentence(folder)
        elif name in ("multi", "score"):
            write_checkpoint(folder, classifier, labels=3 if name == "multi" else 1,
                             problem_type="multi_label_classification" if name == "multi" else "regression")
        else:
            write_checkpoint(folder, name)
        return provisioned(folder, work / f"{name}-shares")

    return of


def provisioned(folder: Path, out: Path, **how: Any) -> Path:
    write_shares(folder, out, **how)
    return out / "client"


@pytest.mark.parametrize("name", KINDS)
def test_the_facts_of_every_kind(clients: Clients, name: str) -> None:
    files = page_model(clients(name))
    assert set(files) == {"model.json", "tokenizer.json"}
    facts, public = json.loads(files["model.json"]), PublicModel.load(clients(name))
    assert facts["kind"] == KINDS[name] and facts["digest"] == public.digest
    assert facts["guarded"] is True and facts["by_token"].keys() == set(facts["names"]) - {"guard"}
    assert (facts["words"], facts["segments"], facts["longest"]) == (len(json.loads(
        files["tokenizer.json"])["model"]["vocab"]), 2, 32)
    assert (facts["mask"] is not None) == (name == "BertForMaskedLM")
    assert str(clients(name).parents[1]) not in str(files), "the owner's paths are nobody's business"


def test_files_hold_no_more_than_clients_have(clients: Clients) -> None:
    facts = json.loads(page_model(clients("BertModel"))["model.json"])
    assert facts.keys() == {"format", "kind", "digest", "words", "segments", "longest", "context", "prompt", "pad",
                            "prefix", "frac", "guarded", "names", "by_token", "labels", "problem", "score", "unit",
                            "mask", "notes", "tokenizer"}


TEXTS = ("the cat sat on the [MASK].", "a [MASK] film was [MASK]", "not good!")


@pytest.mark.parametrize("name", KINDS)
def test_answers_say_what_the_python_client_says(clients: Clients, name: str, tmp_path: Path) -> None:
    """Random results, in random halves: labels, probabilities, scores, vectors, words for masks, and trust."""
    public = PublicModel.load(clients(name))
    tokenizer = Tokenizer(clients(name), public.inputs)
    read = tokenizer.read(list(TEXTS))
    batch = Batch(tuple(read.rows))
    halves = random_halves(public, batch)
    readings = [{"ids": row.ids.tolist(), "segments": row.segments.tolist()} for row in read.rows]
    page = str(write_page(clients(name), tmp_path / "page"))
    *tokenized, found = core([
        *({"do": "tokenize", "folder": page, "text": text} for text in TEXTS),
        {"do": "answer", "folder": page, "request": {"id": "0" * 32, "readings": readings},
         "bodies": [text_of(pack_answer(half, "0" * 32)) for half in halves]}])
    assert [{key: one[key] for key in ("ids", "segments")} for one in tokenized] == readings
    assert found["cost"] == Cost().as_dict() and [text["trusted"] for text in found["texts"]] == [True, False, True]
    for i, text in enumerate(found["texts"]):
        same_answer(text, wanted(public, tokenizer, read, batch, halves), i, len(read.rows[i]))


def random_halves(public: PublicModel, batch: Batch) -> tuple[Answer, Answer]:
    """Halves of random results; the guard's word of the second text says that values left their ranges."""
    draw, words = np.random.default_rng(1), ({}, {})
    for name, by_token in public.architecture.results.items():
        size = {"logits": max(1, len(public.architecture.spec.labels))}.get(name, public.architecture.hidden_size)
        if public.architecture.head.name == "MASKED" and name == "logits":
            size = public.inputs.words
        whole = encode(draw.normal(0, 2, (batch.tokens if by_token else batch.size, size)), public.fixed.frac)
        words[0][name] = draw.integers(0, 2**64, whole.shape, np.uint64)
        words[1][name] = whole - words[0][name]
    words[0][GUARD] = draw.integers(0, 2**64, (batch.size, 1), np.uint64)
    words[1][GUARD] = np.array([[0], [2**63], [0]], np.uint64) - words[0][GUARD]
    first, second = (Answer({n: half[n] for n in public.names}, public.fixed.frac, Cost()) for half in words)
    return first, second


def wanted(public: PublicModel, tokenizer: Tokenizer, read: Any, batch: Batch,
           halves: tuple[Answer, Answer]) -> SecureOutput:
    """What the Python client makes of these halves."""
    values = named(joined(halves, public.names, public.fixed.frac))

    def ask(asked: Batch, tell: Any) -> tuple[Any, Cost]:
        order = [next(i for i, row in enumerate(batch.rows) if row is one) for one in asked.rows]
        tokens = np.concatenate([np.arange(n) + start for start, n in zip(
            batch.starts[order], batch.lengths[order], strict=True)])
        by_token = public.architecture.results
        return {name: each[tokens if by_token.get(name) else order] for name, each in values.items()}, Cost()

    results, cost = gather(read.rows, 1000, public.architecture.results, [ask], lambda *_: None)
    return assemble(public.architecture, read.rows, results, cost=cost, notes=[], profile_source="",
                    answers=answers(public.architecture, read, results, tokenizer))


def same_answer(text: dict[str, Any], output: SecureOutput, i: int, tokens: int) -> None:
    """Exponentials may differ by units in the last place; all else is equal."""
    if "vector" in text:
        np.testing.assert_allclose(text["vector"], output.embeddings[i], rtol=1e-12, atol=1e-15)
        return
    if "masks" in text:
        assert output.answers is not None
        masks = output.answers[i].masks  # type: ignore[union-attr]
        assert [[word["id"] for word in mask["words"]] for mask in text["masks"]] == [
            [word.id for word in mask.words] for mask in masks]
        for mask, own in zip(text["masks"], masks, strict=True):
            np.testing.assert_allclose([word["probability"] for word in mask["words"]],
                                       [word.probability for word in own.words], rtol=1e-12)
        return
    assert ("score" in text) == (output.scores is not None)
    if output.scores is not None:
        assert text["score"] == pytest.approx(float(output.scores[i]), rel=1e-12) and "label" not in text
        return
    assert output.labels is not None and output.probabilities is not None
    assert text.get("label", text.get("labels")) == output.labels[i]
    own = output.probabilities[i][:tokens] if "labels" in text else output.probabilities[i]
    np.testing.assert_allclose(text["probabilities"], own, rtol=1e-12)


def test_models_that_a_page_cannot_serve_are_refused(clients: Clients, tmp_path: Path) -> None:
    question = write_checkpoint(tmp_path / "question", "BertForQuestionAnswering")
    plain = write_checkpoint(tmp_path / "plain")
    lower = write_sentence(tmp_path / "lower", limits={"max_seq_length": 32, "do_lower_case": True})
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("public.json", "config.json"):
        (bare / name).write_bytes((clients("BertModel") / name).read_bytes())
    for i, (folder, problem) in enumerate((
            (provisioned(question, tmp_path / "1"), "tells where an answer starts and ends"),
            (provisioned(plain, tmp_path / "2", embedding="client"), "would give them to everyone who opens it"),
            (provisioned(lower, tmp_path / "3"), "puts its texts into lower case"),
            (bare, "has no tokenizer"), (tmp_path / "nowhere", "cannot read"))):
        with pytest.raises(ModelError, match=problem):
            page_model(folder)
            pytest.fail(f"case {i} is taken")


def test_what_the_python_client_refuses_the_page_refuses(clients: Clients, tmp_path: Path) -> None:
    """Empty, too long, not Unicode, of a wrong type, a folder of another version, a party of another model."""
    name = "BertModel"
    page, public = str(write_page(clients(name), tmp_path / "page")), PublicModel.load(clients(name))
    tokenizer = Tokenizer(clients(name), public.inputs)
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer.json").write_text("{}")
    (other / "model.json").write_text('{"format": "secformer page 9"}')
    long, half = "cat " * 40, "a \ud800 b"
    cases: list[tuple[Any, str]] = [
        (long, "text 3 has 42 tokens; this model takes at most 32"), (half, "text 3 is not valid Unicode: character 2"),
        (["a", "\udc80"], "text 3, the second of its pair, is not valid UTF-8: character 0"), (7, "must be a string"),
        (["a", "b", "c"], "must be a string"), (["a", 1], "must be a string"), (None, "must be a string")]
    jobs = [{"do": "tokenize", "folder": page, "text": text, "number": 3} for text, _ in cases]
    cut = {"do": "tokenize", "folder": page, "text": long, "truncation": True}
    *refused, empty, shortened, strange, same, another, nothing = core([
        *jobs, {"do": "tokenize", "folder": page, "text": ""}, cut, {"do": "facts", "folder": str(other)},
        {"do": "same", "folder": page, "rank": 0, "description": {"digest": public.digest}},
        {"do": "same", "folder": page, "rank": 1, "description": {"digest": "x"}},
        {"do": "request", "folder": page, "texts": []}])
    for (text, said), found in zip(cases, refused, strict=True):
        assert found.get("error") == "InputError" and said in found["message"], (ascii(text), found)
    (row,) = tokenizer.rows(long, truncation=True)
    assert shortened["ids"] == row.ids.tolist() and empty["ids"] == tokenizer.rows("")[0].ids.tolist()
    assert strange["error"] == "ModelError" and "make the page again" in strange["message"]
    assert same is None and another["error"] == "ProtocolError" and "party 1 holds model x" in another["message"]
    assert nothing["error"] == "InputError"


@pytest.mark.parametrize("truncation", [False, True])
def test_pairs_are_cut_and_put_into_segments_as_in_python(clients: Clients, tmp_path: Path, truncation: bool) -> None:
    page, folder = str(write_page(clients("BertModel"), tmp_path / "page")), clients("BertModel")
    tokenizer = Tokenizer(folder, PublicModel.load(folder).inputs)
    sizes = [(0, 0), (3, 4), (1, 28), (29, 0), (14, 15)] + ([(40, 3), (3, 40), (20, 20), (15, 40), (40, 14)]
                                                            if truncation else [])
    pairs = [("cat " * a, "the " * b) for a, b in sizes]
    found = core([{"do": "tokenize", "folder": page, "text": list(pair), "truncation": truncation} for pair in pairs])
    for one, row in zip(found, tokenizer.rows(pairs, truncation=truncation), strict=True):
        assert (one["ids"], one["segments"]) == (row.ids.tolist(), row.segments.tolist())
