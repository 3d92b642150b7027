"""A comparison as a table and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

from comparison_lab import TEXTS
from views_lab import printed

from secformer.models.run.comparison import PARTS, Comparison
from secformer.views.comparison import comparison, comparison_json, notes, notes_by_recipe


def test_json_schema(compared: Comparison) -> None:
    data = json.loads(json.dumps(comparison_json(TEXTS, compared), allow_nan=False))
    assert set(data) == {"texts", "model", "trained_for", "answer", "networks", "plaintext", "recipes", "notes"}
    assert set(data["networks"]) == {"LAN", "WAN"} and data["plaintext"]["labels"] == ["positive", "negative"]
    base = {"recipe", "ran", "problem", "needs_distilled_model"}
    more = {"label_agreement", "max_error", "min_cosine", "seconds", "offline_seconds", "bytes", "rounds",
            "dealer_bytes", "predicted_seconds", "parts", "provisioning_bytes", "answers", "notes"}
    faithful, _, broken = data["recipes"]
    assert set(faithful) == base | more and set(broken) == base
    assert set(faithful["parts"]) == set(PARTS)
    for key in ("bytes", "rounds", "dealer_bytes"):
        assert sum(part[key] for part in faithful["parts"].values()) == faithful[key]
    assert faithful["predicted_seconds"]["WAN"]["online"] > faithful["predicted_seconds"]["LAN"]["online"] > 0


def test_the_table_says_what_ran_and_why_one_did_not(compared: Comparison) -> None:
    text = printed(comparison(TEXTS, compared))
    assert "faithful *" in text and "secformer *" not in text and "brok<en did not run: RangeError" in text
    assert f"on {len(TEXTS)} text(s)" in text and "error and cosine compare logits" in text


def test_notes_name_the_recipes_that_need_another_model(compared: Comparison) -> None:
    how, students = notes(compared)
    assert "per round" in how
    assert "trained for the recipe 'secformer'" in students and ": faithful, brok<en." in students
    (plain,) = notes(replace(compared, rows=compared.rows[1:2]))
    assert plain == how
    assert "exact functions" in notes(replace(compared, trained_for=None))[1]


def test_a_note_of_several_recipes_is_told_once(compared: Comparison) -> None:
    first, second, third = compared.rows
    rows = (replace(first, notes=("a", "b")), replace(second, notes=("b",)), third)
    assert notes_by_recipe(replace(compared, rows=rows)) == {"a": ["faithful"], "b": ["faithful", "secformer"]}
