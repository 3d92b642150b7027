"""Scores: of training, and of a classifier in plaintext and on shares."""

from __future__ import annotations

from views_lab import printed, rows

from secformer.models.distill.evaluate import Evaluation
from secformer.mpc.meter import Cost
from secformer.views.training import evaluation, evaluation_json, trained, trained_json


def test_what_training_reached() -> None:
    assert printed(trained("out", "sst2", {"accuracy": 0.9, "f1": 0.875})).strip() == (
        "out: sst2 dev accuracy 0.9000, f1 0.8750")
    assert trained_json("out", "sst2", {"f1": 0.875}) == {"out": "out", "task": "sst2", "dev": {"f1": 0.875}}


def test_plaintext_alone_has_one_row() -> None:
    found = Evaluation("own", 4, "faithful", {"accuracy": 0.75})
    assert rows(evaluation(found)) == [["own, 4 examples", "accuracy"], ["plaintext", "0.7500"]]


def test_secure_scores_stand_below() -> None:
    found = Evaluation("own", 4, "faithful", {"accuracy": 0.75}, {"accuracy": 0.5}, 0.75, 0.01, Cost("total", rounds=3),
                       notes=("cut",))
    text = printed(evaluation(found))
    assert rows(evaluation(found))[2] == ["secure, faithful", "0.5000"]
    assert "same labels: 75.00%; largest difference between two logits: 1.0e-02" in text and "note: cut" in text
    facts = evaluation_json("folder", found)
    assert facts["model"] == "folder" and facts["secure"] == {"accuracy": 0.5} and facts["cost"]["rounds"] == 3


def test_a_regression_has_no_labels_to_agree_on() -> None:
    found = Evaluation("stsb", 4, "faithful", {"pearson": 0.9}, {"pearson": 0.9}, None, 0.01, Cost("total"))
    assert "same labels" not in printed(evaluation(found))
