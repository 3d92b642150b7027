"""The endpoints over a real port, with models in plaintext: shapes, numbers, and everything that is refused."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the gateway needs the extra `serve`")
pytest.importorskip("uvicorn", reason="the gateway needs the extra `serve`")
pytest.importorskip("jinja2", reason="conversations need the extra `chat`")

from checkpoints import write_checkpoint
from gateway_lab import JSON, KEY, Plain, Said, desk, plain, said, serving
from roles_lab import until
from sentence_lab import add_modules
from tiny_chat_lab import CONTEXT, MESSAGES, tiny_chat

from secformer.gateway import web
from secformer.gateway.completions import USUAL
from secformer.gateway.fields import MOST
from secformer.gateway.server import GatewayServer
from secformer.gateway.web import MAX_BODY
from secformer.models.run.output import SecureOutput
from secformer.mpc.errors import PeerLost
from secformer.roles.asking import Busy

TEXTS = ["the cat sat", "a dog ran on the mat", "it was not a good film !"]
CHAT = {"model": "chat", "messages": MESSAGES, "max_tokens": 6, "temperature": 0}
PLACE = ("somewhere in the model",)
LONG = "the cat sat on the mat " * 20


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plain]:
    folder = tmp_path_factory.mktemp("models")
    nested = add_modules(write_checkpoint(folder / "nested"), dense=[(8, "linear.Identity", True)])
    config = json.loads((nested / "config.json").read_text("utf-8"))
    (nested / "config.json").write_text(json.dumps(config | {"matryoshka_dimensions": [4]}), "utf-8")
    return {
        "embedder": plain(write_checkpoint(folder / "embedder")),
        "nested": plain(nested),
        "labels": plain(write_checkpoint(folder / "labels", "BertForSequenceClassification")),
        "ranker": plain(write_checkpoint(folder / "ranker", "BertForSequenceClassification", labels=1)),
        "chat": plain(tiny_chat(folder / "chat"), public_prefix="auto"),
    }


@pytest.fixture(scope="module")
def served(models: dict[str, Plain]) -> Iterator[GatewayServer]:
    with serving([desk(name, model) for name, model in models.items()]) as server:
        yield server


def refused(answer: Said, status: int, code: str, param: str | None = None, says: str = "") -> None:
    error = answer.error
    kind = {401: "authentication_error", 429: "rate_limit_error", 503: "server_error", 500: "server_error"}
    assert (answer.status, error["code"], error["param"]) == (status, code, param), error
    assert error["type"] == kind.get(status, "invalid_request_error") and says in error["message"], error


# ---- embeddings ------------------------------------------------------------------------------------------------------


def embedded(answer: Said) -> np.ndarray:
    data = answer.json["data"]
    assert [each["index"] for each in data] == list(range(len(data)))
    assert {each["object"] for each in data} == {"embedding"} and answer.json["object"] == "list"
    return np.array([each["embedding"] for each in data])


def test_embeddings_of_every_form_of_input(served: GatewayServer, models: dict[str, Plain]) -> None:
    wanted = models["embedder"].embed(TEXTS)
    ids = [row.ids.tolist() for row in models["embedder"].tokenizer.rows(TEXTS)]
    tokens = sum(map(len, ids))
    for given in (TEXTS, ids):
        answer = said(served, "/v1/embeddings", {"model": "embedder", "input": given, "user": "somebody"})
        assert answer.status == 200 and np.abs(embedded(answer) - wanted).max() < 1e-6
        assert answer.json["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
        assert answer.json["model"] == "embedder"
    for one in (TEXTS[0], ids[0]):
        answer = said(served, "/v1/embeddings", {"model": "embedder", "input": one, "encoding_format": None})
        assert embedded(answer).shape == (1, 12) and np.abs(embedded(answer) - wanted[0]).max() < 1e-6
        assert answer.json["usage"]["prompt_tokens"] == len(ids[0])


def test_embeddings_as_base64_are_little_endian_floats(served: GatewayServer, models: dict[str, Plain]) -> None:
    answer = said(served, "/v1/embeddings", {"model": "embedder", "input": TEXTS, "encoding_format": "base64"})
    for each, wanted in zip(answer.json["data"], models["embedder"].embed(TEXTS), strict=True):
        found = np.frombuffer(base64.b64decode(each["embedding"], validate=True), "<f4")
        assert np.array_equal(found, wanted.astype(np.float32))


def test_dimensions_only_where_the_model_allows(served: GatewayServer, models: dict[str, Plain]) -> None:
    assert said(served, "/v1/embeddings", {"model": "embedder", "input": "a", "dimensions": 12}).status == 200
    for bad in (6, 13):
        refused(said(served, "/v1/embeddings", {"model": "embedder", "input": "a", "dimensions": bad}), 400,
                "invalid_value", "dimensions", "have 12 dimensions, and they cannot be cut")
    cut = embedded(said(served, "/v1/embeddings", {"model": "nested", "input": "a cat", "dimensions": 4}))
    whole = models["nested"].embed("a cat")
    assert whole.shape == (8,) and np.abs(cut[0] - whole[:4] / np.linalg.norm(whole[:4])).max() < 1e-6
    refused(said(served, "/v1/embeddings", {"model": "nested", "input": "a", "dimensions": 5}), 400, "invalid_value",
            "dimensions", "allows [4]")


@pytest.mark.parametrize(("body", "param"), [
    ({}, "input"), ({"input": []}, "input"), ({"input": [[]]}, "input"), ({"input": ["a", 1]}, "input"),
    ({"input": [[1], "a"]}, "input"), ({"input": {"text": "a"}}, "input"), ({"input": [True]}, "input"),
    ({"input": 7}, "input"), ({"input": ["a"] * (MOST + 1)}, "input"), ({"input": [1.5]}, "input"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format"), ({"input": "a", "dimensions": 0}, "dimensions"),
    ({"input": "a", "dimensions": "6"}, "dimensions"), ({"input": "a", "colour": "red"}, "colour"),
])
def test_embeddings_that_are_refused(served: GatewayServer, body: dict[str, Any], param: str) -> None:
    answer = said(served, "/v1/embeddings", {"model": "embedder"} | body)
    assert answer.status == 400 and answer.error["param"] == param


def test_texts_that_the_model_cannot_take(served: GatewayServer) -> None:
    for path, body in (("/v1/embeddings", {"model": "embedder", "input": ["a", LONG]}),
                       ("/v1/rerank", {"model": "ranker", "query": "a", "documents": ["a", LONG]}),
                       ("/v1/classify", {"model": "labels", "input": ["a", LONG]})):
        refused(said(served, path, body), 400, "context_length_exceeded", says="text 1 has")
    answer = said(served, "/v1/embeddings", {"model": "embedder", "input": [[2, 9999, 3]]})
    refused(answer, 400, "invalid_value", says="input_ids must lie in 0..38 for this model; got 2..9999")


def test_token_ids_of_another_tokenizer_are_refused(served: GatewayServer) -> None:
    """As langchain's OpenAIEmbeddings sends them by default: without [CLS] and [SEP], and with ids of other words."""
    for path, model in (("/v1/embeddings", "embedder"), ("/v1/classify", "labels")):
        for ids in ([15, 19], [[2, 9, 3], [9, 3]], [[2, 9]]):
            refused(said(served, path, {"model": model, "input": ids}), 400, "invalid_value",
                    says="must be those of this model's own tokenizer, with the ids [2, 3]")


# ---- ranking and labels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_documents_are_ranked(served: GatewayServer, models: dict[str, Plain], path: str) -> None:
    wanted = models["ranker"].rerank("a film", TEXTS)
    mixed = [TEXTS[0], {"text": TEXTS[1]}, TEXTS[2]]
    answer = said(served, path, {"model": "ranker", "query": "a film", "documents": mixed, "top_n": 2})
    results = answer.json["results"]
    assert [each["index"] for each in results] == [each.corpus_id for each in wanted[:2]]
    assert all(abs(each["relevance_score"] - own.score) < 1e-9 and set(each) == {"index", "relevance_score"}
               for each, own in zip(results, wanted, strict=False))
    assert answer.json["usage"]["total_tokens"] > 20 and answer.json["id"]
    body = {"model": "ranker", "query": "a film", "documents": mixed, "return_documents": True}
    assert [each["document"] for each in said(served, path, body).json["results"]] == [
        {"text": each.text} for each in wanted]


@pytest.mark.parametrize(("body", "param"), [
    ({"documents": ["a"]}, "query"), ({"query": 1, "documents": ["a"]}, "query"), ({"query": "a"}, "documents"),
    ({"query": "a", "documents": []}, "documents"), ({"query": "a", "documents": "a"}, "documents"),
    ({"query": "a", "documents": [{"title": "a"}]}, "documents"), ({"query": "a", "documents": [["a"]]}, "documents"),
    ({"query": "a", "documents": [{"text": 1}]}, "documents"),
    ({"query": "a", "documents": ["a"], "top_n": 0}, "top_n"),
    ({"query": "a", "documents": ["a"], "return_documents": 1}, "return_documents"),
    ({"query": "a", "documents": ["a"], "max_tokens_per_doc": 5}, "max_tokens_per_doc"),
    ({"query": "a", "documents": ["a"], "rank": 1}, "rank"),
])
def test_rankings_that_are_refused(served: GatewayServer, body: dict[str, Any], param: str) -> None:
    answer = said(served, "/v1/rerank", {"model": "ranker"} | body)
    assert answer.status == 400 and answer.error["param"] == param


@pytest.mark.parametrize("name", ["input", "inputs"])
def test_labels(served: GatewayServer, models: dict[str, Plain], name: str) -> None:
    answer = said(served, "/v1/classify", {"model": "labels", name: TEXTS})
    for i, (each, own) in enumerate(zip(answer.json["data"], models["labels"].classify(TEXTS, None), strict=True)):
        assert (each["object"], each["index"], each["prediction"]) == ("classification", i, own[0].label)
        assert each["score"] == pytest.approx(own[0].score) and each["predictions"] == [
            {"label": label.label, "score": pytest.approx(label.score)} for label in own]
    assert len(said(served, "/v1/classify", {"model": "labels", name: "a cat"}).json["data"]) == 1


def test_labels_that_are_refused(served: GatewayServer) -> None:
    for more, param in (({"labels": ["a"]}, "labels"), ({"examples": []}, "examples"), ({"inputs": "a"}, "input"),
                        ({"truncate": "END"}, "truncate")):
        answer = said(served, "/v1/classify", {"model": "labels", "input": "a"} | more)
        assert answer.status == 400 and answer.error["param"] == param
    refused(said(served, "/v1/classify", {"model": "labels"}), 400, "missing_parameter", "input")


@pytest.mark.parametrize(("path", "body"), [
    ("/v1/embeddings", {"model": "labels", "input": "a"}), ("/v1/embeddings", {"model": "chat", "input": "hello"}),
    ("/v1/classify", {"model": "embedder", "input": "a"}), ("/v1/completions", {"model": "embedder", "prompt": "a"}),
    ("/v1/rerank", {"model": "labels", "query": "a", "documents": ["a"]}),
    ("/v1/chat/completions", {"model": "labels", "messages": MESSAGES}),
])
def test_a_task_that_the_model_is_not_for(served: GatewayServer, path: str, body: dict[str, Any]) -> None:
    refused(said(served, path, body), 400, "unsupported_by_model", "model")


# ---- texts that are generated ----------------------------------------------------------------------------------------


def test_an_answer_to_messages(served: GatewayServer, models: dict[str, Plain]) -> None:
    own = models["chat"].generate(MESSAGES, max_new_tokens=6)
    answer = said(served, "/v1/chat/completions", CHAT)
    (choice,) = answer.json["choices"]
    assert choice["message"] == {"role": "assistant", "content": own.text, "refusal": None}
    assert choice["finish_reason"] == "length" and answer.json["object"] == "chat.completion"
    assert answer.json["usage"] == {"prompt_tokens": len(own.prompt), "completion_tokens": 6,
                                    "total_tokens": len(own.prompt) + 6}
    parts = [{"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}]
    same = said(served, "/v1/chat/completions", CHAT | {"messages": parts})
    assert same.json["choices"][0]["message"]["content"] == own.text and same.json["id"] != answer.json["id"]


def test_the_same_in_chunks(served: GatewayServer, models: dict[str, Plain]) -> None:
    own = models["chat"].generate(MESSAGES, max_new_tokens=6)
    answer = said(served, "/v1/chat/completions",
                  CHAT | {"stream": True, "stream_options": {"include_usage": True}})
    *chunks, usage, done = answer.events
    assert answer.headers["content-type"].startswith("text/event-stream") and done == "done"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in chunks) == own.text
    assert [each["choices"][0]["finish_reason"] for each in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert len({each["id"] for each in (*chunks, usage)}) == 1 and len(chunks) > 3
    assert {each["object"] for each in (*chunks, usage)} == {"chat.completion.chunk"}
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 6
    assert all(each["usage"] is None for each in chunks)
    assert "usage" not in said(served, "/v1/chat/completions", CHAT | {"stream": True}).events[0]


def test_prompts_are_continued(served: GatewayServer, models: dict[str, Plain]) -> None:
    """Each as texts, and as token ids; several in one request, whole and in chunks."""
    texts = [models["chat"].tokenizer.chat([{"role": "user", "content": each}]) for each in ("hello", "world")]
    ids = [models["chat"].tokenizer.tokens(text, special=False) for text in texts]
    own = [models["chat"].generate({"input_ids": each}, max_new_tokens=4) for each in ids]
    for prompt in (texts, ids):
        body = {"model": "chat", "prompt": prompt, "max_tokens": 4, "temperature": 0}
        answer = said(served, "/v1/completions", body)
        assert [each["text"] for each in answer.json["choices"]] == [each.text for each in own]
        assert [each["index"] for each in answer.json["choices"]] == [0, 1]
        assert answer.json["object"] == "text_completion" and answer.json["usage"]["completion_tokens"] == 8
        *chunks, done = said(served, "/v1/completions", body | {"stream": True}).events
        for i in (0, 1):
            mine = [each["choices"][0] for each in chunks if each["choices"][0]["index"] == i]
            assert "".join(each["text"] for each in mine) == own[i].text and mine[-1]["finish_reason"] == "length"
        assert done == "done"
    short = said(served, "/v1/completions", {"model": "chat", "prompt": ids[0], "temperature": 0})
    assert short.json["usage"]["completion_tokens"] == USUAL


def test_how_tokens_are_chosen(served: GatewayServer, models: dict[str, Plain]) -> None:
    """Equal seeds make equal choices; without a temperature, tokens are sampled, as in OpenAI's interface."""
    def text(**options: Any) -> str:
        body = {"model": "chat", "messages": MESSAGES, "max_completion_tokens": 6} | options
        return str(said(served, "/v1/chat/completions", body).json["choices"][0]["message"]["content"])

    own = models["chat"].generate(MESSAGES, max_new_tokens=6, temperature=1.0, top_k=0, seed=3).text
    assert text(seed=3) == text(seed=3, temperature=1, top_p=1, n=1, max_tokens=2) == own != text(temperature=0)
    cold = models["chat"].generate(MESSAGES, max_new_tokens=6, temperature=0.5, top_p=0.5, top_k=4, seed=3).text
    assert text(seed=3, temperature=0.5, top_p=0.5, top_k=4) == cold


def test_a_stop_text_ends_it(served: GatewayServer, models: dict[str, Plain]) -> None:
    whole = models["chat"].generate(MESSAGES, max_new_tokens=6).text
    stop = whole[2]
    for given in (stop, ["never", stop]):
        (choice,) = said(served, "/v1/chat/completions", CHAT | {"stop": given}).json["choices"]
        assert choice["message"]["content"] == whole[: whole.index(stop)] and choice["finish_reason"] == "stop"


def test_an_answer_may_fill_the_context(served: GatewayServer) -> None:
    """Without a limit, as long as the context lasts, or until the model ends it; more is refused."""
    long = [{"role": "user", "content": "a b " * 28}]
    answer = said(served, "/v1/chat/completions", CHAT | {"messages": long, "max_tokens": None})
    assert answer.json["choices"][0]["finish_reason"] == "length" and answer.json["usage"]["total_tokens"] == CONTEXT
    refused(said(served, "/v1/chat/completions", CHAT | {"max_tokens": CONTEXT}), 400, "context_length_exceeded",
            says=f"this model's context holds {CONTEXT}")


def test_where_models_lie_is_not_told(served: GatewayServer, models: dict[str, Plain]) -> None:
    body = CHAT | {"messages": [{"role": "narrator", "content": "a"}]}
    refused(said(served, "/v1/chat/completions", body), 400, "invalid_value", says="the chat template in chat's folder")


@pytest.mark.parametrize(("more", "param"), [
    ({"tools": [{"type": "function"}]}, "tools"), ({"tool_choice": "required"}, "tool_choice"),
    ({"functions": [{}]}, "functions"), ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"logit_bias": {"5": 1}}, "logit_bias"), ({"logprobs": True}, "logprobs"), ({"top_logprobs": 2}, "top_logprobs"),
    ({"n": 2}, "n"), ({"presence_penalty": 0.5}, "presence_penalty"), ({"frequency_penalty": 1}, "frequency_penalty"),
    ({"modalities": ["audio"]}, "modalities"), ({"store": True}, "store"), ({"audio": {}}, "audio"),
    ({"reasoning_effort": "low"}, "reasoning_effort"), ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": 1.5}, "max_completion_tokens"), ({"temperature": 3}, "temperature"),
    ({"temperature": "0"}, "temperature"), ({"top_p": 1.5}, "top_p"), ({"seed": -1}, "seed"), ({"stop": [""]}, "stop"),
    ({"stop": ["a"] * 17}, "stop"), ({"stop": 5}, "stop"), ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"colour": True}}, "stream_options"), ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"), ({"messages": [{"content": "a"}]}, "messages[0]"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "a", "name": "me"}]}, "messages[0]"),
    ({"messages": [*MESSAGES, {"role": "assistant", "content": "a", "tool_calls": [{}]}]}, "messages[1]"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages[0].content"),
])
def test_options_that_are_refused(served: GatewayServer, more: dict[str, Any], param: str) -> None:
    answer = said(served, "/v1/chat/completions", CHAT | more)
    assert answer.status == 400 and answer.error["param"] == param


def test_options_that_ask_for_nothing(served: GatewayServer) -> None:
    neutral = {"n": 1, "tools": [], "tool_choice": "none", "logit_bias": {}, "logprobs": False, "presence_penalty": 0,
               "frequency_penalty": 0.0, "response_format": {"type": "text"}, "user": "me", "stop": None,
               "store": False}
    assert said(served, "/v1/chat/completions", CHAT | neutral).status == 200
    sent_back = [*MESSAGES, {"role": "assistant", "content": "a", "refusal": None, "tool_calls": None}, *MESSAGES]
    assert said(served, "/v1/chat/completions", CHAT | {"messages": sent_back, "max_tokens": 1}).status == 200
    for more in ({"best_of": 2}, {"echo": True}, {"suffix": "a"}, {"logprobs": 0}):
        answer = said(served, "/v1/completions", {"model": "chat", "prompt": "a"} | more)
        assert answer.status == 400 and answer.error["param"] == next(iter(more))


def test_a_caller_that_leaves_ends_the_text(served: GatewayServer, models: dict[str, Plain],
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamed or whole: a step that runs is the last one, and what the parties keep of the text is let go."""
    steps, closed, go = [], threading.Event(), threading.Semaphore(0)
    begin = models["chat"].decoding

    def decoding() -> Any:
        text = begin()
        ask, close = text._ask, text.close

        def slowly(batch: Any, turn: Any) -> Any:
            steps.append(batch.tokens)
            if len(steps) > 2:
                go.acquire()
            return ask(batch, turn)

        def closing() -> None:
            close()
            closed.set()

        text._ask, text.close = slowly, closing
        return text

    monkeypatch.setattr(models["chat"], "decoding", decoding)
    for stream in (True, False):
        steps.clear()
        closed.clear()
        connection = HTTPConnection(*served.address, timeout=60.0)
        body = json.dumps(CHAT | {"stream": stream, "max_tokens": 100})
        connection.request("POST", "/v1/chat/completions", body, JSON)
        until(lambda: len(steps) == 3)
        assert not closed.is_set()
        connection.close()
        if not stream:
            until(lambda: not served._gateway._here)
        for _ in range(3):
            go.release()
        assert closed.wait(30.0) and len(steps) <= 5
        while go.acquire(blocking=False):
            pass


# ---- who may ask, and what for ---------------------------------------------------------------------------------------


def test_models_are_listed(served: GatewayServer) -> None:
    found = said(served, "/v1/models").json
    assert found["object"] == "list" and [each["id"] for each in found["data"]] == [
        "embedder", "nested", "labels", "ranker", "chat"]
    one = said(served, "/v1/models/chat").json
    assert one in found["data"] and (one["object"], one["owned_by"]) == ("model", "secformer")
    refused(said(served, "/v1/models/gpt/4"), 404, "model_not_found", "model")
    refused(said(served, "/v1/embeddings", {"model": "gpt", "input": "a"}), 404, "model_not_found", "model",
            "the models are embedder, nested")
    refused(said(served, "/v1/embeddings", {"input": "a"}), 400, "missing_parameter", "model")
    assert said(served, "/healthz").body == b"alive\n" and said(served, "/readyz").body == b"ready\n"


@pytest.mark.parametrize(("body", "status", "code"), [
    (b"", 400, "invalid_json"), (b"{", 400, "invalid_json"), (b"[1]", 400, "invalid_json"),
    (b"\xff", 400, "invalid_json"),
    (b'{"model": "a", "model": "b"}', 400, "invalid_json"), (b'{"temperature": NaN}', 400, "invalid_json"),
    (b"[" * 100_000, 400, "invalid_json"), (b'{"input": "\\ud800"}', 400, "invalid_json"),
    (b" " * (MAX_BODY + 1), 413, "request_too_large"),
], ids=lambda value: str(value)[:20])
def test_bodies_that_are_refused(served: GatewayServer, body: bytes, status: int, code: str) -> None:
    refused(said(served, "/v1/embeddings", body, method="POST"), status, code)


def test_requests_that_are_not_for_a_gateway(served: GatewayServer) -> None:
    refused(said(served, "/v1/audio/speech", {}), 404, "unknown_url")
    wrong = said(served, "/v1/embeddings")
    refused(wrong, 405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    for kind in ("text/plain", "application/x-www-form-urlencoded"):  # what a page in a browser may send unasked
        refused(said(served, "/v1/embeddings", b"{}", headers={"Content-Type": kind}), 415, "unsupported_media_type")


def test_no_page_in_a_browser_can_use_it(served: GatewayServer) -> None:
    asked = said(served, "/v1/embeddings", method="OPTIONS", headers={
        "Origin": "https://example.com", "Access-Control-Request-Method": "POST"})
    answered = said(served, "/v1/models", headers={"Origin": "https://example.com"})
    assert asked.status == 405
    assert not [name for each in (asked, answered) for name in each.headers if name.startswith("access-control")]
    refused(said(served, "/v1/models", headers={"Host": "evil.example:80"}), 403, "wrong_host")
    for name in ("localhost:1", "127.0.0.1", "[::1]:5", "LOCALHOST"):
        assert said(served, "/v1/models", headers={"Host": name}).status == 200


def test_the_api_key(models: dict[str, Plain]) -> None:
    with serving([desk("embedder", models["embedder"])], api_key=KEY) as server:
        for headers in ({}, {"Authorization": KEY}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {KEY}x"},
                        {"Authorization": f"Basic {KEY}"}, {"Authorization": "Bearer \xff"}):
            for path, body in (("/v1/models", None), ("/v1/embeddings", {"model": "embedder", "input": "a"}),
                               ("/v2/rerank", {}), ("/v1/nothing", None)):
                answer = said(server, path, body, headers=headers)
                refused(answer, 401, "invalid_api_key")
                assert answer.headers["www-authenticate"] == "Bearer"
        trick = {"Host": "127.0.0.1/healthz?"}  # a URL made of this header has another path
        refused(said(server, "/v1/models", headers=trick), 401, "invalid_api_key")
        shown = {"Authorization": f"bearer {KEY}", "Host": "my.proxy"}
        assert said(server, "/v1/models", headers=shown).status == 200
        assert said(server, "/healthz").status == said(server, "/readyz").status == 200


# ---- what fails ------------------------------------------------------------------------------------------------------


def test_parties_that_fail(models: dict[str, Plain], monkeypatch: pytest.MonkeyPatch) -> None:
    """503 in their shape, whole or streamed, and an answer again as soon as the parties are back."""
    asked = [("/v1/embeddings", {"model": "embedder", "input": "a"}), ("/v1/chat/completions", CHAT),
             ("/v1/chat/completions", CHAT | {"stream": True})]
    with serving([desk("embedder", models["embedder"]), desk("chat", models["chat"])]) as server:
        for error, status, code, after in (
                (PeerLost("party1 at 10.0.0.2:8443 hung up"), 503, "parties_unavailable", "2"),
                (Busy("party0 answered 429", 3600.0), 429, "party_limit", "3600")):
            for model in ("embedder", "chat"):
                monkeypatch.setattr(models[model], "broken", error)
            for path, body in asked:
                answer = said(server, path, body)
                refused(answer, status, code)
                assert answer.headers["retry-after"] == after and "10.0.0.2" not in answer.error["message"]
            ready = said(server, "/readyz")
            assert ready.status == 503 and ready.body.startswith(b"embedder: no cell answers")
            for model in ("embedder", "chat"):
                monkeypatch.setattr(models[model], "broken", None)
            assert [said(server, path, body).status for path, body in asked] == [200] * 3
            assert said(server, "/readyz").status == 200


def test_parties_that_fail_in_the_middle_of_a_stream(served: GatewayServer, models: dict[str, Plain],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    begin = models["chat"].decoding

    def decoding() -> Any:
        text = begin()
        ask = text._ask

        def failing(batch: Any, turn: Any) -> Any:
            steps.append(batch)
            if len(steps) == 4:
                raise PeerLost("party1 hung up")
            return ask(batch, turn)

        text._ask = failing
        return text

    monkeypatch.setattr(models["chat"], "decoding", decoding)
    *chunks, last = said(served, "/v1/chat/completions", CHAT | {"stream": True}).events
    assert last["error"]["code"] == "parties_unavailable" and "choices" in chunks[-1]


def test_another_cell_takes_over(models: dict[str, Plain]) -> None:
    """A cell that fails is not noticed while another one answers."""
    good, bad = models["embedder"], plain(models["embedder"].folder.path)
    bad.broken = PeerLost("party0 is gone")
    with serving([desk("embedder", bad, good)]) as server:
        answers = [said(server, "/v1/embeddings", {"model": "embedder", "input": text}) for text in TEXTS * 2]
        assert {answer.status for answer in answers} == {200} and said(server, "/readyz").status == 200
        wanted = good.embed(TEXTS * 2)
        assert np.abs(np.concatenate([embedded(answer) for answer in answers]) - wanted).max() < 1e-6
    assert good.closed and bad.closed


def marked(out: SecureOutput, *bad: int) -> SecureOutput:
    return replace(out, breaches=[PLACE if i in bad else () for i in range(len(out.attention_mask))])


def test_texts_that_the_guard_marks(served: GatewayServer, models: dict[str, Plain],
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Never an answer that may be wrong; and another caller's text in the same call is not concerned."""
    call = Plain.__call__

    def guarded(self: Plain, texts: Any, progress: Any = False) -> SecureOutput:
        out = call(self, texts)
        return marked(out, *(i for i, row in enumerate(self._read(texts).rows) if len(row) == 3))

    monkeypatch.setattr(Plain, "__call__", guarded)
    bad = {"model": "embedder", "input": ["the cat sat", "a"]}
    refused(said(served, "/v1/embeddings", bad), 422, "untrusted_result", says="text 1 cannot be trusted")
    refused(said(served, "/v1/classify", {"model": "labels", "input": "a"}), 422, "untrusted_result")
    with ThreadPoolExecutor(8) as threads:
        both = [threads.submit(said, served, "/v1/embeddings", {"model": "embedder", "input": text})
                for text in ["a", "the cat sat on a mat"] * 4]
        assert [each.result().status for each in both] == [422, 200] * 4


def test_a_text_that_is_marked_while_it_grows(served: GatewayServer, models: dict[str, Plain],
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    begin, steps = models["chat"].decoding, []

    def decoding() -> Any:
        text = begin()
        ask = text._ask

        def leaving(batch: Any, turn: Any) -> Any:
            steps.append(batch)
            return replace(ask(batch, turn), breaches=PLACE if len(steps) == 3 else ())

        text._ask = leaving
        return text

    monkeypatch.setattr(models["chat"], "decoding", decoding)
    refused(said(served, "/v1/chat/completions", CHAT), 422, "untrusted_result")
    steps.clear()
    *chunks, last = said(served, "/v1/chat/completions", CHAT | {"stream": True}).events
    assert last["error"]["code"] == "untrusted_result"
    whole = models["chat"].generate(MESSAGES, max_new_tokens=6).text
    given = "".join(each["choices"][0]["delta"].get("content", "") for each in chunks)
    assert given and whole.startswith(given) and given != whole


def test_a_defect_is_told_without_its_words(served: GatewayServer, monkeypatch: pytest.MonkeyPatch,
                                            caplog: pytest.LogCaptureFixture) -> None:
    def failing(self: Plain, texts: Any, progress: Any = False) -> SecureOutput:
        raise KeyError("a key")

    monkeypatch.setattr(Plain, "__call__", failing)
    with caplog.at_level(logging.ERROR):
        refused(said(served, "/v1/embeddings", {"model": "embedder", "input": "a"}), 500, "internal_error")
    assert "request failed" in caplog.text


def test_too_many_requests(served: GatewayServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "REQUESTS", 0)
    answer = said(served, "/v1/models")
    refused(answer, 429, "too_many_requests")
    assert answer.headers["retry-after"] == "2" and said(served, "/healthz").status == 200


def test_logs_hold_no_texts(served: GatewayServer, caplog: pytest.LogCaptureFixture) -> None:
    """Of requests that are answered, of those that are refused, and of paths and names that nobody knows."""
    secret = "wxyzq"
    with caplog.at_level(logging.DEBUG, logger="secformer"):
        said(served, "/v1/embeddings", {"model": "embedder", "input": f"the {secret}"})
        said(served, "/v1/embeddings", {"model": "embedder", "input": f"{secret} " * 50})
        said(served, "/v1/embeddings", {"model": secret, "input": secret, secret: secret})
        said(served, f"/v1/{secret}?text={secret}", {"model": secret})
        said(served, "/v1/chat/completions", CHAT | {"messages": [{"role": secret, "content": secret}]})
        said(served, "/v1/chat/completions", CHAT | {"messages": [{"role": "user", "content": secret}]})
        until(lambda: sum(record.getMessage() == "request" for record in caplog.records) >= 6)
    told = [(record.getMessage(), getattr(record, "fields", {}), record.exc_text) for record in caplog.records]
    assert secret not in str(told) and {"/v1/embeddings", "other"} <= {fields.get("path") for _, fields, _ in told}


# ---- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [True, False])
def test_requests_in_flight_are_finished_or_told(models: dict[str, Plain], monkeypatch: pytest.MonkeyPatch,
                                                 ends: bool) -> None:
    """What runs is finished, if it ends in time; what waits, and what would run too long, gets 503."""
    running, go = threading.Event(), threading.Event()
    call = Plain.__call__

    def slowly(self: Plain, texts: Any, progress: Any = False) -> SecureOutput:
        running.set()
        go.wait(60.0)
        if self.closed:
            raise PeerLost("hung up")
        return call(self, texts)

    def close(self: Plain) -> None:
        self.closed = True
        go.set()

    monkeypatch.setattr(Plain, "__call__", slowly)
    monkeypatch.setattr(Plain, "close", close)
    model = models["embedder"]
    model.closed = False
    with ThreadPoolExecutor(3) as threads:
        with serving([desk("embedder", model)]) as server:
            first = threads.submit(said, server, "/v1/embeddings", {"model": "embedder", "input": "a"})
            assert running.wait(30.0)
            second = threads.submit(said, server, "/v1/embeddings", {"model": "embedder", "input": "a cat"})
            until(lambda: bool(server._gateway.desks["embedder"]._waiting))
            if ends:
                threading.Timer(0.2, go.set).start()
            server.close(30.0 if ends else 0.1)
        refused(second.result(), 503, "shutting_down")
        if ends:
            assert first.result().status == 200
        else:
            refused(first.result(), 503, "shutting_down")
    model.closed = False
