"""Answers as tables: which columns a head gets, and what stands in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from views_lab import printed, rows

from secformer.models.run.output import SecureOutput
from secformer.models.run.tasks import AnswerSpan, Entities, Entity, FilledMasks, Mask, Word
from secformer.views.answers import answer_table, demo, demo_json, infer_json

TEXTS = ["one [bold]text[/bold]", "another"]
MASK = np.ones((2, 2))
CLASSES = SecureOutput(MASK, logits=np.zeros((2, 2)), labels=["good", "bad"],
                       probabilities=np.array([[0.9, 0.1], [0.25, 0.75]]))
OUTPUTS = {
    "classes": (CLASSES, ["label", "probability"], ["good", "0.9000"]),
    "several labels": (SecureOutput(MASK, labels=[["a", "b"], []], probabilities=np.array([[0.9, 0.8], [0.1, 0.2]])),
                       ["label", "probability"], ["a, b", "0.9000 0.8000"]),
    "labels of tokens": (SecureOutput(MASK, labels=[["A", "B"], ["B"]], probabilities=np.array(
        [[[0.9, 0.1], [0.3, 0.7]], [[0.2, 0.8], [0.0, 0.0]]])), ["label", "probability"], ["A B", "0.7000 to 0.9000"]),
    "question": (SecureOutput(MASK, start_logits=np.array([[0.0, 1.0], [1.0, 0.0]]), end_logits=np.eye(2)),
                 ["start token", "end token"], ["1", "0"]),
    "encoder": (SecureOutput(MASK, last_hidden_state=np.ones((2, 2, 4)), encoder_only=True),
                ["embedding (4 numbers)", "cosine to the first"], ["+0.500 +0.500 +0.500 +0.500 ...", "1.0000"]),
    "unnormalised": (SecureOutput(MASK, sentence_embedding=np.array([[3.0, 4.0], [0.0, 2.0]]), encoder_only=True),
                     ["embedding (2 numbers)", "cosine to the first"], ["+3.000 +4.000 ...", "1.0000"]),
    "score": (SecureOutput(MASK, logits=np.zeros((2, 1)), scores=np.array([0.5, 0.5])),
              ["score", "logit"], ["0.5000", "0.0000"]),
    "pre-training": (SecureOutput(MASK, prediction_logits=np.arange(12.0).reshape(2, 2, 3),
                                  seq_relationship_logits=np.eye(2)),
                     ["logits", "the first four (--json has all)"], ["2 x 3", "0.0000 1.0000 2.0000 3.0000"]),
    "masked words": (SecureOutput(MASK, logits=np.arange(12.0).reshape(2, 2, 3)),
                     ["logits", "the first four (--json has all)"], ["2 x 3", "0.0000 1.0000 2.0000 3.0000"]),
    "one output": (SecureOutput(MASK, logits=np.array([[1.25], [-3.0]])), ["score"], ["1.2500"]),
    "several outputs": (SecureOutput(MASK, logits=np.array([[1.25, 2.0], [-3.0, 0.0]])), ["scores"],
                        ["1.2500 2.0000"]),
    "filled masks": (SecureOutput(MASK, logits=np.zeros((2, 2, 3)), answers=[
        FilledMasks((Mask((Word("cat", 6, 0.75), Word("dog", 7, 0.125)), 4, 10, 0),)), FilledMasks((), "no [MASK]")]),
        ["words for each mask, with probability"], ["cat 0.7500, dog 0.1250"]),
    "answers": (SecureOutput(MASK, start_logits=np.eye(2), end_logits=np.eye(2), answers=[
        AnswerSpan("[b]two[/b] hours", 0.5, 3, 12), AnswerSpan("", 0.0, None, None, "give pairs")]),
        ["answer", "score", "characters"], ["[b]two[/b] hours", "0.5000", "3..12"]),
    "entities": (SecureOutput(MASK, labels=[["A"], ["B"]], probabilities=np.ones((2, 1, 1)), answers=[
        Entities((Entity("PER", "Sarah", 0.875, 11, 16, 0),)), Entities(())]),
        ["entities, with score and characters"], ["PER: Sarah 0.8750 11..16"]),
}


@pytest.mark.parametrize(("out", "columns", "first"), OUTPUTS.values(), ids=OUTPUTS)
def test_each_head_has_its_columns(out: SecureOutput, columns: list[str], first: list[str]) -> None:
    head, row, _ = rows(answer_table(TEXTS, out))
    assert head == ["text", *columns] and row[1:] == first


def test_texts_that_cannot_be_trusted_are_told_apart() -> None:
    marked = replace(CLASSES, trusted=np.array([True, False]), breaches=[(), ("layer.0/gelu: input",)])
    head, first, second = rows(answer_table(TEXTS, marked))
    assert (head[-1], first[-1], second[-1]) == ("trusted", "yes", "no")
    assert "trusted" not in rows(answer_table(TEXTS, replace(CLASSES, trusted=np.array([True, True]))))[0]
    left_out = replace(marked, labels=[CLASSES.labels[0], None], probabilities=np.array([[0.9, 0.1], [np.nan, np.nan]]))
    assert rows(answer_table(TEXTS, left_out))[2][1:] == ["(left out)", "", "no"]
    spans = replace(OUTPUTS["answers"][0], answers=[None, OUTPUTS["answers"][0].answers[0]])
    assert rows(answer_table(TEXTS, spans))[1][1:] == ["(left out)", "", ""]


def test_what_has_no_answer_says_why() -> None:
    assert rows(answer_table(TEXTS, OUTPUTS["filled masks"][0]))[2][1] == "(no [MASK])"
    assert rows(answer_table(TEXTS, OUTPUTS["answers"][0]))[2][1:] == ["(give pairs)", "", ""]
    assert rows(answer_table(TEXTS, OUTPUTS["entities"][0]))[2][1] == "(none)"


def test_each_mask_and_each_entity_has_a_line() -> None:
    masks = FilledMasks(tuple(Mask((Word(word, 1, 0.5),), None, None, 0) for word in ("one", "two")))
    found = Entities((Entity("A", "x", 0.5, None, None, 0), Entity("B", "y", 0.25, 2, 3, 0)))
    for answer, lines in ((masks, ["one 0.5000", "two 0.5000"]), (found, ["A: x 0.5000", "B: y 0.2500 2..3"])):
        table = answer_table(["text"], SecureOutput(MASK, answers=[answer]))
        assert [row[1] for row in rows(table)[1:]] == lines


def test_json_has_the_answers() -> None:
    facts = infer_json(TEXTS, OUTPUTS["answers"][0])
    assert facts["answers"][0] == {"text": "[b]two[/b] hours", "score": 0.5, "start": 3, "end": 12, "note": ""}
    facts = infer_json(TEXTS, OUTPUTS["filled masks"][0])
    assert facts["answers"][0]["masks"][0]["words"][0] == {"word": "cat", "id": 6, "probability": 0.75}
    assert "answers" not in infer_json(TEXTS, CLASSES)


def test_a_text_without_any_label_says_so() -> None:
    assert rows(answer_table(TEXTS, OUTPUTS["several labels"][0]))[2][1] == "(none)"


def test_texts_are_shown_as_they_are() -> None:
    """Square brackets are no markup."""
    assert rows(answer_table(TEXTS, CLASSES))[1][0] == TEXTS[0]
    assert rows(answer_table([("a", "b"), ("c", "d")], CLASSES))[1][0] == "a | b"


def test_demo_compares_with_plaintext() -> None:
    plain = SecureOutput(MASK, logits=np.ones((2, 2)), labels=["good", "good"],
                         probabilities=np.array([[0.9, 0.1], [0.75, 0.25]]))
    text = printed(demo(TEXTS, CLASSES, plain))
    assert "largest difference between two probabilities: 5.0e-01" in text
    facts = demo_json(TEXTS, CLASSES, plain)
    assert facts["max_probability_difference"] == 0.5 and facts["secure"]["labels"] == ["good", "bad"]
    assert set(facts["plaintext"]) == {"labels", "probabilities", "logits"}


def test_json_of_pairs() -> None:
    facts = infer_json([("a", "b"), ("c", "d")], CLASSES)
    assert facts["texts"] == [["a", "b"], ["c", "d"]] and facts["labels"] == ["good", "bad"]
