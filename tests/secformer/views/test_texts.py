"""Texts and pairs, as tables and JSON hold them."""

from __future__ import annotations

from views_lab import printed

from secformer.views.texts import Refused, one_line, refused_json, refused_lines, texts_json


def test_texts_stay_and_pairs_are_joined() -> None:
    assert one_line("a text") == "a text" and one_line(("a question", "a passage")) == "a question | a passage"
    assert texts_json(["a", "b"]) == ["a", "b"] and texts_json([("a", "b")]) == [["a", "b"]]


def test_texts_that_were_left_out() -> None:
    some = [Refused(3, "text 3 [b]has[/b] 99 tokens")]
    assert [printed(line).strip() for line in refused_lines(some)] == ["text 3 [b]has[/b] 99 tokens"]
    assert refused_json(some) == [{"number": 3, "problem": "text 3 [b]has[/b] 99 tokens"}]
