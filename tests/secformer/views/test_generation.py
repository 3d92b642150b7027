"""Lines, tables and JSON of generated text."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

from rich.console import Console

from secformer.models.generation.stops import End
from secformer.models.run.generate import Generated, Scored, TokenCost
from secformer.mpc.meter import Cost
from secformer.views.generation import cost_line, generated_json, scores, scores_json

PROMPT = Cost(seconds=1.5, offline_seconds=0.5, bytes=3_200_000, rounds=40)
STEPS = (TokenCost(3, Cost(seconds=0.6, offline_seconds=0.2, bytes=3_000_000, rounds=30, dealer_bytes=6_000_000)),
         TokenCost(1, Cost(seconds=0.1, offline_seconds=0.1, bytes=1_000_000, rounds=30, dealer_bytes=2_000_000)))
FOUND = Generated("a [b]c", (5, 6, 7, 8, 9), (-1.0,) * 5, End.TOKEN, (1, 2, 3), PROMPT, STEPS)


def test_the_cost_line() -> None:
    assert cost_line(FOUND) == ("5 tokens (end token); 4.00 tokens per second; per token 1.00 MB online, 15 rounds, "
                                "2.00 MB of the dealer; prompt of 3 tokens: 2.0 s, 3.2 MB, 40 rounds")
    alone = Generated("", (5,), (-1.0,), End.CLOSED, (1,), PROMPT, ())
    assert cost_line(alone) == "1 tokens (closed); prompt of 1 tokens: 2.0 s, 3.2 MB, 40 rounds"


def test_json_of_a_generation() -> None:
    facts = json.loads(json.dumps(generated_json("abc", FOUND, ["n"]), allow_nan=False))
    assert facts["prompt"] == "abc" and facts["text"] == "a [b]c" and facts["end"] == "end token" and facts["trusted"]
    assert facts["tokens"] == [5, 6, 7, 8, 9] and facts["prompt_tokens"] == [1, 2, 3] and facts["notes"] == ["n"]
    assert [step["tokens"] for step in facts["cost"]["steps"]] == [3, 1]
    assert facts["cost"]["per_token"]["bytes"] == 1e6 and facts["cost"]["prompt"]["rounds"] == 40


def shown(view: Any) -> str:
    out = StringIO()
    Console(file=out, width=100).print(view)
    return out.getvalue()


def test_scores() -> None:
    good, bad = Scored(-2.0, 2, PROMPT), Scored(float("nan"), 3, PROMPT, ("layer.0",))
    text = shown(scores(["a [b]c", "d"], [good, bad], ["a note"]))
    assert "a [b]c" in text and "2.7183" in text and "-2.0000" in text and "6.40" in text and "note: a note" in text
    assert "trusted" in text and "yes" in text and "no" in text
    assert "trusted" not in shown(scores(["a"], [good], []))
    facts = json.loads(json.dumps(scores_json(["a", "d"], [good, bad], []), allow_nan=False))
    assert facts["scores"][1] == {"tokens": 3, "log_likelihood": None, "perplexity": None, "trusted": False}
    assert facts["cost"]["bytes"] == 6_400_000
