"""Ranges of values: what `check` found, and what `profile` measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from views_lab import printed, rows

from secformer.models.ranges.profile import RangeProfile, Violation
from secformer.models.run.check import Check
from secformer.models.run.output import SecureOutput
from secformer.protocols.ranges import Range
from secformer.views.ranges import check, check_json, profile, profile_json

REFERENCE = SecureOutput(np.ones((1, 1)), logits=np.zeros((1, 2)), labels=["good"],
                         probabilities=np.array([[0.6, 0.4]]))
OUTSIDE = Violation("layer.0.gelu", "x", Range(-9.0, 9.0), Range(-4.0, 4.0), 5)


def test_texts_within_their_ranges() -> None:
    report = Check((), "", {"logits": 0.002}, REFERENCE, "profile.json")
    text = printed(check(["a"], report))
    assert "range profile: profile.json; all texts stay within it" in text and "2.0e-03" in text and "NOT" not in text
    assert check_json(["a"], report)["within"] is True


def test_texts_outside_their_ranges() -> None:
    report = Check((OUTSIDE,), "the value 9 does not fit", {}, REFERENCE, "profile.json")
    text = printed(check(["a"], report))
    assert "NOT all texts stay within it" in text and str(OUTSIDE) in text and "the value 9 does not fit" in text
    facts = json.loads(json.dumps(check_json(["a"], report)))
    assert not facts["within"] and facts["problem"] == "the value 9 does not fit"
    assert facts["violations"] == [{"text": 5, "site": "layer.0.gelu", "quantity": "x", "found": [-9.0, 9.0],
                                    "allowed": [-4.0, 4.0], "factor": 2.25}]
    assert facts["exact"]["labels"] == ["good"]


def test_a_measured_profile() -> None:
    measured = RangeProfile("digest", "exact", 3, 20, 1.5, {"pooler": {"x": Range(-1.25, 2.5)}})
    view = profile(measured, Path("model/ranges.json"))
    assert rows(view)[1] == ["pooler", "x", "-1.25", "2.5"]
    assert "3 texts (20 tokens)" in printed(view) and "margin of 1.5" in printed(view)
    assert profile_json(measured, Path("model/ranges.json")) == {
        "path": "model/ranges.json", "design": "exact", "texts": 3, "tokens": 20, "margin": 1.5,
        "sites": {"pooler": {"x": [-1.25, 2.5]}}}
