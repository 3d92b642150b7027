"""Answers as tables: which columns a head gets, and what stands in them."""

from __future__ import annotations

import numpy as np
import pytest
from views_lab import printed, rows

from secformer.models.run.output import SecureOutput
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
}


@pytest.mark.parametrize(("out", "columns", "first"), OUTPUTS.values(), ids=OUTPUTS)
def test_each_head_has_its_columns(out: SecureOutput, columns: list[str], first: list[str]) -> None:
    head, row, _ = rows(answer_table(TEXTS, out))
    assert head == ["text", *columns] and row[1:] == first


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
