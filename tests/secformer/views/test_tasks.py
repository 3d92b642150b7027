"""Results of tasks as tables and as JSON: a line per result, and what stands for none."""

from __future__ import annotations

import json

import numpy as np
from rich.console import Group
from rich.table import Table
from views_lab import printed, rows

from secformer.models.run.helpers import Filled, Label, Ranked
from secformer.models.run.output import SecureOutput
from secformer.models.run.tasks import AnswerSpan, Entity
from secformer.mpc.meter import Cost
from secformer.views.tasks import entities, facts, labels, ranking, spans, words

OUT = SecureOutput(np.ones((3, 2)), notes=["a note"], profile_source="beside")
TEXTS = ["one [b]two[/b]", "three", "four"]
LEFT_OUT = "(left out)"


def table(view: object) -> list[list[str]]:
    assert isinstance(view, Group) and isinstance(view.renderables[0], Table) and "note: a note" in printed(view)
    return rows(view.renderables[0])


def test_a_ranking_has_a_row_per_document() -> None:
    found = [Ranked(2, 0.75, "[b]best[/b]"), Ranked(0, 0.5, "worse"), Ranked(1, float("nan"), "unknown")]
    assert table(ranking(found, OUT)) == [
        ["score", "number", "document"], ["0.7500", "2", "[b]best[/b]"], ["0.5000", "0", "worse"],
        [LEFT_OUT, "1", "unknown"]]


def test_labels_and_entities_have_a_line_each() -> None:
    assert table(labels(TEXTS, [[Label("a", 0.5), Label("b", 0.25)], None, [Label("[b]", 2.0)]], OUT)) == [
        ["text", "label", "score"], [TEXTS[0], "a", "0.5000"], ["", "b", "0.2500"], ["three", LEFT_OUT, ""],
        ["four", "[b]", "2.0000"]]
    found = [[Entity("PER", "one", 0.5, 0, 3, 0), Entity("LOC", "two", 0.25, None, None, 0)], [], None]
    assert table(entities(TEXTS, found, OUT)) == [
        ["text", "label", "entity", "score", "characters"], [TEXTS[0], "PER", "one", "0.5000", "0..3"],
        ["", "LOC", "two", "0.2500", ""], ["three", "(none)", "", "", ""], ["four", LEFT_OUT, "", "", ""]]


def test_words_are_told_mask_by_mask() -> None:
    a, b = Filled(0.5, 7, "a", "one a"), Filled(0.25, 8, "b", "one b")
    assert table(words(TEXTS, [[a, b], [[a], [b]], None], OUT))[1:] == [
        [TEXTS[0], "0", "a", "0.5000", "one a"], ["", "0", "b", "0.2500", "one b"],
        ["three", "0", "a", "0.5000", "one a"], ["", "1", "b", "0.2500", "one b"], ["four", LEFT_OUT, "", "", ""]]


def test_answers_stand_beside_question_and_passage() -> None:
    pairs = [("who?", "the cat"), ("what?", "a dog")]
    assert table(spans(pairs, [AnswerSpan("cat", 0.5, 4, 7), None], OUT))[1:] == [
        ["who? | the cat", "cat", "0.5000", "4..7"], ["what? | a dog", LEFT_OUT, "", ""]]


def test_json_holds_plain_values_and_null() -> None:
    found = facts(SecureOutput(np.ones((1, 1)), cost=Cost(), notes=["n"], profile_source="p"), texts=[("a", "b")],
                  embeddings=np.array([[0.5, 1.0], [np.nan, np.nan]]), ranking=[Ranked(0, float("nan"), "x")],
                  words=[[[Filled(0.5, 7, "a", "one a")]], None])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["texts"] == [["a", "b"]] and found["embeddings"] == [[0.5, 1.0], [None, None]]
    assert found["ranking"] == [{"corpus_id": 0, "score": None, "text": "x"}]
    assert found["words"] == [[[{"score": 0.5, "token": 7, "token_str": "a", "sequence": "one a"}]], None]
    assert found["notes"] == ["n"] and found["profile"] == "p" and found["cost"]["rounds"] == 0
    assert facts(OUT)["cost"] is None
