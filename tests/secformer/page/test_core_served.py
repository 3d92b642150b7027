"""Requests of the page's JavaScript, answered by both engines and the dealer: labels, and text that grows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core_lab import Core, bytes_of, text_of, write_page
from engines_lab import Engines
from tiny_chat_lab import measured_chat

import secformer
from secformer import demo_model
from secformer.models.run.public import PublicModel
from secformer.roles.messages import pack_answer, unpack_half
from secformer.roles.settings import load_client

SENTENCES = ["A wonderful film.", "A dull, lifeless mess.", "tr\u00e8s bien, \u4f60\u597d!"]
USER, BOT = {"role": "user"}, {"role": "assistant"}


class Served:
    """Engines, and a page of their model."""

    def __init__(self, engines: Engines, folder: Path):
        clients = load_client(engines.roles.settings("client")).model
        self.engines, self.public = engines, PublicModel.load(clients)
        self.page = str(write_page(clients, folder))

    def answers(self, halves: list[str]) -> list[str]:
        """What the parties answer to bodies, as bodies."""
        found = []
        for rank, body in enumerate(halves):
            half = unpack_half(bytes_of(body), inputs=self.public.inputs, private=True, rank=rank, max_tokens=512)
            found.append((half.request, self.engines.jobs[rank].submit(half, "client", 120.0)))
        return [text_of(pack_answer(future.result(120), request)) for request, future in found]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Engines(tmp_path_factory.mktemp("engines"), deadline=120.0) as engines:
        engines.ready()
        yield Served(engines, tmp_path_factory.mktemp("page") / "model")


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = measured_chat(tmp_path_factory.mktemp("chat") / "model")
    with Engines(tmp_path_factory.mktemp("engines"), folder, sessions=3, deadline=120.0) as engines:
        engines.ready()
        served = Served(engines, tmp_path_factory.mktemp("page") / "model")
        served.model = folder  # type: ignore[attr-defined]
        yield served


def test_labels_are_those_of_the_plaintext_model(demo: Served) -> None:
    with Core() as core:
        facts = core.ask(do="facts", folder=demo.page)
        request = core.ask(do="request", folder=demo.page, texts=SENTENCES)
        answer = core.ask(do="answer", folder=demo.page, request=request, bodies=demo.answers(request["halves"]))
    plain = secformer.plain_model(demo_model(), SENTENCES)
    assert facts["labels"] == ["negative", "positive"] and plain.labels is not None
    assert [text["label"] for text in answer["texts"]] == plain.labels
    assert all(text["trusted"] is True for text in answer["texts"])
    np.testing.assert_allclose([text["probabilities"] for text in answer["texts"]], plain.probabilities, atol=2e-3)
    assert answer["cost"]["rounds"] > 0 and answer["cost"]["bytes"] > 0 and answer["cost"]["seconds"] > 0


def grown(core: Core, served: Served, prompt: Any, most: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A text that grows to its end: how it began, and its steps."""
    begun, steps = core.ask(do="text", folder=served.page, prompt=prompt, most=most), list[dict[str, Any]]()
    while not steps or not steps[-1]["ended"]:
        request = core.ask(do="next")
        assert "error" not in request, request
        steps.append(core.ask(do="take", bodies=served.answers(request["halves"])))
        assert "error" not in steps[-1], steps[-1]
    return begun, steps


def test_generated_text_is_that_of_the_plaintext_model(chat: Served) -> None:
    """A conversation, and one whose prompt takes several steps; pieces put together are the text."""
    long = "hello world, " * 8
    cases = [(["hello"], [USER | {"content": "hello"}], 6), ([long], [USER | {"content": long.strip()}], 3),
             (["hello", "well", " \u00e9\u4f60 "], [USER | {"content": "hello"}, BOT | {"content": "well"},
                                              USER | {"content": "\u00e9\u4f60"}], 4)]
    with Core() as core:
        assert core.ask(do="facts", folder=chat.page)["converses"] is True
        for messages, same, most in cases:
            plain = secformer.plain_generate(chat.model, same, max_new_tokens=most)  # type: ignore[attr-defined]
            begun, steps = grown(core, chat, messages, most)
            assert begun["ids"] == list(plain.prompt)
            assert steps[-1]["generated"] == list(plain.tokens) and steps[-1]["text"] == plain.text
            assert "".join(step["piece"] for step in steps) == plain.text and steps[-1]["ended"] == plain.end.value
            assert all(step["trusted"] is True and step["cost"]["rounds"] > 0 for step in steps)
            early = [step for step in steps if step["token"] is None]
            assert len(early) == (len(plain.prompt) - chat.public.prefixed - 1) // 128
            (session,) = {step["session"] for step in steps}
            for engine in chat.engines.engines:
                assert engine.sessions.count() == 1
                engine.sessions.end("client", session, "its client ended it")
                assert not engine.sessions.count()


def test_prompts_that_the_python_client_refuses_the_page_refuses(chat: Served, demo: Served) -> None:
    cases = [("", "the prompt is empty"), ("hello", "does not begin with the model's public prefix"),
             (["a" * 400], "this model's context holds"), (["a", "b"], "the user's first and last"),
             ([], "the user's first and last"), ([7], "the user's first and last"),
             (["\ud800"], "the content of message 0 is not valid Unicode")]
    with Core() as core:
        for prompt, said in cases:
            found = core.ask(do="text", folder=chat.page, prompt=prompt, most=4)
            assert found.get("error") == "InputError" and said in found["message"], found
        for most in (0, 1.5):
            assert core.ask(do="text", folder=chat.page, prompt=["a"], most=most)["error"] == "InputError"
        assert "generates no text" in core.ask(do="text", folder=demo.page, prompt="a", most=4)["message"]


def test_a_text_whose_answers_do_not_fit_has_ended(chat: Served) -> None:
    with Core() as core:
        core.ask(do="text", folder=chat.page, prompt=["hello"], most=4)
        assert "no answers are awaited" in core.ask(do="take", bodies=["", ""])["message"]
        core.ask(do="next")
        assert "are still to come" in core.ask(do="next")["message"]
        assert core.ask(do="take", bodies=["", ""])["error"] == "ProtocolError"
        assert "this text has ended" in core.ask(do="next")["message"]
