"""Conversations with a scripted model: what is said, what is kept, and how answers end early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripted_lab import Scripted

from secformer.models.generation.stops import End
from secformer.models.run.conversation import Conversation
from secformer.mpc.errors import InputError

pytest.importorskip("jinja2")
SYSTEM = {"role": "system", "content": "Hi."}


@pytest.fixture
def model(tmp_path: Path) -> Scripted:
    return Scripted(tmp_path, longest=160)


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_turns_compute_new_tokens_only(model: Scripted) -> None:
    talk = Conversation(model, system="Hi.")
    first = talk.ask("a", max_new_tokens=3, draft=None)
    assert first.text == "abc" and talk.messages == [SYSTEM, said("user", "a"), said("assistant", "abc")]
    second = talk.ask("x", max_new_tokens=2, draft=None)
    assert second.text == "ab" and talk.messages[3:] == [said("user", "x"), said("assistant", "ab")]
    (text,) = model.texts
    assert len(first.prompt) == len(text.steps[0])
    kept = len(first.prompt) + 2  # the last token of the answer was never taken
    assert second.prompt[kept:] == tuple(text.steps[3]) and second.prompt[:kept] == (*first.prompt, *first.tokens[:2])
    talk.close()
    assert text.ended


def test_an_answer_that_is_cut_short_stays_as_far_as_it_came(model: Scripted) -> None:
    talk = Conversation(model)
    with talk.ask("a", stream=True, max_new_tokens=9, draft=None) as running:
        assert next(running) + next(running) == "ab"
    assert talk.messages == [said("user", "a"), said("assistant", "ab")] and running.result.end is End.CLOSED
    running = talk.ask("b", stream=True, max_new_tokens=9, draft=None)
    next(running)
    talk.ask("c", max_new_tokens=1)
    assert [m["content"] for m in talk.messages] == ["a", "ab", "b", "a", "c", "a"], "another question ends an answer"
    assert len(model.texts) == 1


def test_a_question_that_is_never_answered_is_forgotten(model: Scripted) -> None:
    talk = Conversation(model, system="Hi.")
    talk.ask("ab", max_new_tokens=1)
    before = list(talk.messages)
    talk.ask("c", stream=True, max_new_tokens=1).close()
    assert talk.messages == before
    with pytest.raises(InputError, match="context holds 160"):
        talk.ask("x" * 150)
    with pytest.raises(InputError, match="a question must be a str, got int"):
        talk.ask(7)  # type: ignore[call-overload]
    assert talk.messages == before


def test_an_interrupt_costs_the_text_but_not_the_conversation(model: Scripted) -> None:
    talk = Conversation(model)
    running = talk.ask("a", stream=True, max_new_tokens=9, draft=None)
    next(running)
    model.interrupted_at = len(running.result.prompt) + 2
    with pytest.raises(KeyboardInterrupt):
        while True:
            next(running)
    assert talk.messages[-1] == said("assistant", "ab")
    model.interrupted_at = -1
    found = talk.ask("b", max_new_tokens=2, draft=None)
    assert found.text == "ab" and len(model.texts) == 2
    assert model.texts[1].steps[0] == list(found.prompt), "the parties lost what was said"


def test_closing_keeps_the_messages(model: Scripted) -> None:
    talk = Conversation(model)
    running: Any = talk.ask("a", stream=True, max_new_tokens=9)
    next(running)
    talk.close()
    talk.close()
    assert talk.messages[-1] == said("assistant", "a") and model.texts[0].ended
    assert talk.ask("b", max_new_tokens=1).text == "a" and len(model.texts) == 2
