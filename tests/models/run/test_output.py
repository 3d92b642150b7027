"""Results: padding, labels, probabilities, embeddings, JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from secformer.models.data.batch import Row
from secformer.models.families.bert import Bert
from secformer.models.families.encoder_facts import EncoderSpec
from secformer.models.run.output import assemble
from secformer.mpc.errors import InputError

SPEC = EncoderSpec(architecture="BertForSequenceClassification", labels=("no", "yes", "both"), vocab=10, types=2,
                positions=8, hidden=4, layers=1, heads=2, intermediate=4, eps=1e-12)
ROWS = [Row(np.arange(n), np.zeros(n, int), np.ones(n, int)) for n in (2, 3)]


def out(spec: EncoderSpec, **values: list[np.ndarray]):
    results = [dict(zip(values, some, strict=True)) for some in zip(*values.values(), strict=True)]
    return assemble(Bert(spec), ROWS, results, cost=None, notes=["n"], profile_source="p")


def test_sequence_classification() -> None:
    found = out(SPEC, logits=[np.array([0.0, 2.0, -800.0]), np.array([900.0, 0.0, 0.0])])
    assert found.labels == ["yes", "no"]
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0)
    np.testing.assert_allclose(found.probabilities[0, 1], 1 / (1 + np.exp(-2.0)))
    assert found.start_logits is None
    with pytest.raises(InputError, match="BertModel"):
        _ = found.embeddings


def test_several_labels_and_regression() -> None:
    logits = [np.array([1.0, -1.0, 2.0]), np.array([-1.0, -1.0, -1.0])]
    several = out(replace(SPEC, problem="multi"), logits=logits)
    assert several.labels == [["no", "both"], []]
    np.testing.assert_allclose(several.probabilities[0, 0], 1 / (1 + np.exp(-1.0)))
    plain = out(replace(SPEC, problem="regression", labels=("score",)), logits=[np.array([0.3]), np.array([-2.0])])
    assert (plain.labels, plain.probabilities) == (None, None)
    assert plain.logits.shape == (2, 1)


@pytest.mark.parametrize("problem", ["regression", "single", "multi"])
def test_the_score_of_a_single_logit(problem: str) -> None:
    """As sentence-transformers' CrossEncoder has it, whatever the problem: sigmoid, or the logit."""
    one, logits = replace(SPEC, problem=problem, labels=("score",)), [np.array([0.3]), np.array([-2.0])]
    np.testing.assert_allclose(out(one, logits=logits).scores, [1 / (1 + np.exp(-0.3)), 1 / (1 + np.exp(2.0))])
    raw = out(replace(one, score="identity"), logits=logits)
    assert raw.scores.tolist() == [0.3, -2.0] and raw.as_dict()["scores"] == [0.3, -2.0]
    assert out(SPEC, logits=[np.zeros(3)] * 2).scores is None


def test_next_sentence_and_pretraining() -> None:
    spec = replace(SPEC, architecture="BertForNextSentencePrediction", labels=("continuation", "random"))
    found = out(spec, logits=[np.array([2.0, -1.0]), np.array([0.0, 1.0])])
    assert found.labels == ["continuation", "random"]
    spec = replace(SPEC, architecture="BertForPreTraining", labels=())
    found = out(spec, prediction_logits=[np.ones((2, 5)), np.ones((3, 5))], seq_relationship_logits=[np.eye(2)[0]] * 2)
    assert found.prediction_logits.shape == (2, 3, 5) and found.seq_relationship_logits.tolist() == [[1.0, 0.0]] * 2
    assert not found.prediction_logits[0, 2].any() and found.logits is None
    assert {"prediction_logits", "seq_relationship_logits"} < found.as_dict().keys()


def test_token_classification_pads_with_zeros() -> None:
    spec = replace(SPEC, architecture="BertForTokenClassification")
    found = out(spec, logits=[np.eye(3)[:2], np.eye(3)])
    assert found.labels == [["no", "yes"], ["no", "yes", "both"]]
    assert found.logits.shape == found.probabilities.shape == (2, 3, 3)
    assert not found.probabilities[0, 2].any()
    assert found.attention_mask.tolist() == [[1, 1, 0], [1, 1, 1]]


def test_question_answering() -> None:
    spec = replace(SPEC, architecture="BertForQuestionAnswering", labels=())
    found = out(spec, logits=[np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros((3, 2))])
    assert found.start_logits[0].tolist() == [1.0, 3.0, 0.0]
    assert found.end_logits[0].tolist() == [2.0, 4.0, 0.0]
    assert found.logits is None


def test_embeddings_average_what_is_attended() -> None:
    spec = replace(SPEC, architecture="BertModel", labels=())
    found = out(spec, last_hidden_state=[np.array([[3.0, 0.0], [3.0, 8.0]]), np.ones((3, 2))])
    np.testing.assert_allclose(found.embeddings[0], [0.6, 0.8])
    np.testing.assert_allclose(np.linalg.norm(found.embeddings, axis=1), 1.0)


def test_as_dict_is_json() -> None:
    spec = replace(SPEC, architecture="BertModel", labels=())
    found = out(spec, last_hidden_state=[np.ones((2, 2)), np.ones((3, 2))])
    short = json.loads(json.dumps(found.as_dict()))
    assert set(short) == {"embeddings", "cost", "notes", "profile"}
    whole = json.loads(json.dumps(found.as_dict(hidden=True)))
    assert np.shape(whole["last_hidden_state"]) == (2, 3, 2)


def test_a_part_of_the_texts() -> None:
    """Rows of every array, and entries of every list that has one per text."""
    whole = out(SPEC, logits=[np.array([0.0, 2.0, -8.0]), np.array([9.0, 0.0, 0.0])],
                guard=[np.array(["somewhere"]), np.array([], dtype=str)])
    part = whole.part(1, 2)
    assert part.labels == ["no"] and part.breaches == [()] and whole.breaches == [("somewhere",), ()]
    assert part.trusted.tolist() == [True] and part.logits.tolist() == [[9.0, 0.0, 0.0]]
    assert part.attention_mask.tolist() == [[1, 1, 1]] and part.notes == whole.notes
    token = replace(SPEC, architecture="BertModel")
    hidden = out(token, last_hidden_state=[np.ones((2, 4)), np.full((3, 4), 2.0)])
    first = hidden.part(0, 1)
    assert first.labels is None and first.answers is None
    np.testing.assert_array_equal(first.embeddings, hidden.embeddings[:1])
