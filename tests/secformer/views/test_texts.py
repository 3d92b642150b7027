"""Texts and pairs, as tables and JSON hold them."""

from __future__ import annotations

from secformer.views.texts import one_line, texts_json


def test_texts_stay_and_pairs_are_joined() -> None:
    assert one_line("a text") == "a text" and one_line(("a question", "a passage")) == "a question | a passage"
    assert texts_json(["a", "b"]) == ["a", "b"] and texts_json([("a", "b")]) == [["a", "b"]]
