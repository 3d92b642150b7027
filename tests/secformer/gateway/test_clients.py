"""The clients that people already use, unchanged, against `secformer gateway` before real roles."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the gateway needs the extra `serve`")
pytest.importorskip("prometheus_client", reason="the served roles need the extra `serve`")
pytest.importorskip("jinja2", reason="conversations need the extra `chat`")

from checkpoints import WORDS, write_checkpoint
from commands_lab import answer
from gateway_lab import KEY
from roles_lab import logged, until
from tiny_chat_lab import MESSAGES, measured_chat, tiny_chat

from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import FILE, measure
from secformer.models.run.generate import Generated
from secformer.models.run.local import reference
from secformer.roles.trial import LocalRoles

TOLERANCE = 0.01
TOKENS = 4
SHORT = {"deadline": 20.0, "dealer_wait": 2.0, "request_deadline": 60.0}
TEXTS = [f"the {word} sat on a mat" for word in WORDS[:5]] + [f"{word} is good" for word in WORDS[:5]]
ASKED = {"model": "chat", "messages": MESSAGES, "max_tokens": TOKENS, "temperature": 0}


@dataclass(frozen=True)
class Served:
    """The gateway's process, the roles behind it, and what the models say in plaintext."""

    url: str
    process: subprocess.Popen[str]
    embedder: LocalRoles
    chat: LocalRoles
    wanted: np.ndarray
    said: Generated


def folders(at: Path) -> tuple[Path, Path]:
    """An encoder and a chat model, with their range profiles."""
    encoder = write_checkpoint(at / "encoder", num_hidden_layers=1)
    measure(ModelFolder(encoder)).save(encoder / FILE)
    return encoder, measured_chat(at / "chat")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    at = tmp_path_factory.mktemp("gateway")
    encoder, talker = folders(at)
    key = at / "key.txt"
    key.write_text(f"{KEY}\n", "utf-8")
    with (LocalRoles(at / "one", encoder, settings=SHORT) as embedder,
          LocalRoles(at / "two", talker, settings=SHORT, public_prefix="auto") as chat):
        command = [sys.executable, "-m", "secformer", "gateway", "--listen", "127.0.0.1:0", "--api-key-file", str(key),
                   "--settings", f"embedder={embedder.settings('client')}",
                   "--settings", f"chat={chat.settings('client')}"]
        with (at / "log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(command, stderr=log, text=True, start_new_session=True)
        wanted = reference(ModelFolder(encoder)).embed(TEXTS)
        own = reference(ModelFolder(talker), public_prefix="auto").generate(MESSAGES, max_new_tokens=TOKENS)
        try:
            said = re.compile(r"The gateway serves embedder, chat at (http://\S+/v1)\.")
            until(lambda: said.search((at / "log").read_text("utf-8")) is not None or process.poll() is not None, 120.0)
            found = said.search((at / "log").read_text("utf-8"))
            assert found, (at / "log").read_text("utf-8")
            for roles in (embedder, chat):
                roles.wait_ready()
            yield Served(found[1], process, embedder, chat, wanted, own)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
            for line in (at / "log").read_text("utf-8").splitlines():
                assert line.startswith("The gateway serves") or json.loads(line)["role"] == "gateway"
                assert "mat" not in line and "hello" not in line
        finally:
            process.kill()
            process.wait()


def right(found: Any, wanted: np.ndarray) -> None:
    assert np.asarray(found).shape == wanted.shape and np.abs(np.asarray(found) - wanted).max() < TOLERANCE


# ---- this package's own ----------------------------------------------------------------------------------------------


def test_a_command_with_a_draft_model(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model itself guesses, so each of two steps gives eight tokens."""
    data = answer(capsys, "generate", str(served.chat.settings("client")), MESSAGES[0]["content"], "--max-new-tokens",
                  "17", "--draft", str(tiny_chat(tmp_path)))
    assert data["tokens"][:TOKENS] == list(served.said.tokens) and len(data["tokens"]) == 17
    assert [step["tokens"] for step in data["cost"]["steps"]] == [8, 8]


# ---- openai ----------------------------------------------------------------------------------------------------------


def test_openai(served: Served) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=served.url, api_key=KEY) as client:
        assert [model.id for model in client.models.list()] == ["embedder", "chat"]
        assert client.models.retrieve("chat").owned_by == "secformer"
        for form in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):  # none: base64, decoded by it
            found = client.embeddings.create(model="embedder", input=TEXTS, **form)
            if form.get("encoding_format") != "base64":
                right([each.embedding for each in found.data], served.wanted)
            assert found.usage.prompt_tokens > 60 and found.model == "embedder"
        answer = client.chat.completions.create(**ASKED)
        assert answer.choices[0].message.content == served.said.text and answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == TOKENS and answer.usage.prompt_tokens == len(served.said.prompt)
        pieces = list(client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}))
        assert "".join(each.choices[0].delta.content or "" for each in pieces[:-1]) == served.said.text
        assert len(pieces) > TOKENS and pieces[-1].usage.completion_tokens == TOKENS
        prompt = list(served.said.prompt)
        whole = client.completions.create(model="chat", prompt=prompt, max_tokens=TOKENS, temperature=0)
        assert whole.choices[0].text == served.said.text


def test_openai_s_errors(served: Served) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=served.url, api_key="another-key-0123456789") as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            client.models.list()
        assert refused.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=served.url, api_key=KEY) as client:
        with pytest.raises(openai.NotFoundError) as refused:
            client.embeddings.create(model="gpt", input="a")
        assert refused.value.code == "model_not_found" and refused.value.param == "model"
        with pytest.raises(openai.BadRequestError) as refused:
            client.embeddings.create(model="embedder", input="a " * 50)
        assert refused.value.code == "context_length_exceeded"
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**ASKED, tools=[{"type": "function", "function": {"name": "f"}}])
        assert refused.value.code == "unsupported_parameter" and refused.value.param == "tools"


def test_openai_s_asynchronous_client_fifty_at_a_time(served: Served) -> None:
    """Each gets its own answer, and one that is refused does not concern the others."""
    openai = pytest.importorskip("openai")

    async def all_at_once() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=served.url, api_key=KEY, max_retries=0) as client:
            return await asyncio.gather(*(client.embeddings.create(model="embedder", input=text) for text in texts),
                                        return_exceptions=True)

    numbers = [i % len(TEXTS) for i in range(50)]
    texts = [*(TEXTS[i] for i in numbers), "a " * 50]
    *found, refused = asyncio.run(all_at_once())
    assert isinstance(refused, openai.BadRequestError)
    right([each.data[0].embedding for each in found], served.wanted[numbers])


def test_openai_s_asynchronous_streams(served: Served) -> None:
    """Two texts at a time; a third is left after its first piece, which ends its session at the parties."""
    openai = pytest.importorskip("openai")

    async def text(client: Any) -> str:
        running = await client.chat.completions.create(**ASKED, stream=True)
        return "".join([piece.choices[0].delta.content or "" async for piece in running])

    async def left(client: Any) -> None:
        running = await client.chat.completions.create(**(ASKED | {"max_tokens": 100}), stream=True)
        async for _ in running:
            break
        await running.close()

    async def three() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=served.url, api_key=KEY, max_retries=0) as client:
            return await asyncio.gather(text(client), text(client), left(client))

    assert asyncio.run(three()) == [served.said.text, served.said.text, None]
    until(lambda: all(sessions(served.chat, rank) == 0 for rank in (0, 1)), 60.0)


def sessions(roles: LocalRoles, rank: int) -> int:
    """How many texts a party holds."""
    from urllib.request import urlopen

    with urlopen(f"http://127.0.0.1:{roles.ports[f'metrics{rank}']}/metrics", timeout=10.0) as answer:
        (line,) = [line for line in answer.read().decode().splitlines() if line.startswith("secformer_sessions ")]
    return int(float(line.split()[1]))


# ---- langchain, curl -------------------------------------------------------------------------------------------------


def test_langchain(served: Served) -> None:
    langchain = pytest.importorskip("langchain_openai")
    client = langchain.OpenAIEmbeddings(model="embedder", base_url=served.url, api_key=KEY,
                                        check_embedding_ctx_length=False)
    right(client.embed_documents(TEXTS), served.wanted)
    right(client.embed_query(TEXTS[3]), served.wanted[3])
    talker = langchain.ChatOpenAI(model="chat", base_url=served.url, api_key=KEY, max_tokens=TOKENS, temperature=0)
    assert talker.invoke("hello").content == served.said.text
    assert "".join(piece.text for piece in talker.stream("hello")) == served.said.text


def curl(served: Served, path: str, body: Any, *options: str) -> tuple[int, str]:
    """The status and the body."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed here")
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "120", "--write-out", "\n%{http_code}",
         "-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {KEY}", "--data-binary", "@-", *options,
         served.url + path], input=json.dumps(body), capture_output=True, text=True, check=True)
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def test_curl(served: Served) -> None:
    status, text = curl(served, "/embeddings", {"model": "embedder", "input": TEXTS})
    assert status == 200
    right([each["embedding"] for each in json.loads(text)["data"]], served.wanted)
    status, text = curl(served, "/chat/completions", ASKED | {"stream": True}, "--no-buffer")
    *events, done, rest = text.split("\n\n")
    assert status == 200 and (done, rest) == ("data: [DONE]", "")
    pieces = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"].get("content", "") for event in events]
    assert "".join(pieces) == served.said.text
    assert curl(served, "/embeddings", {"model": "embedder"})[0] == 400


# ---- parties that die ------------------------------------------------------------------------------------------------


def test_a_party_that_dies_and_comes_back(served: Served) -> None:
    """503 in their shape for its model alone, at once for requests that run; the same gateway then answers again."""
    body = {"model": "embedder", "input": TEXTS[:2]}
    served.embedder.stop("party1", signal.SIGKILL)
    logged(served.embedder, "party0", lambda line: "link" in line["event"] or "lost" in line["event"])
    with ThreadPoolExecutor(4) as threads:
        found = [each.result() for each in [threads.submit(curl, served, "/embeddings", body) for _ in range(4)]]
    for status, text in found:
        error = json.loads(text)["error"]
        assert (status, error["type"], error["code"]) == (503, "server_error", "parties_unavailable")
    assert curl(served, "/chat/completions", ASKED)[0] == 200
    served.embedder.start("party1")
    served.embedder.wait_ready()
    status, text = curl(served, "/embeddings", body)
    assert status == 200
    right([each["embedding"] for each in json.loads(text)["data"]], served.wanted[:2])


def test_the_manual_s_examples(served: Served, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (root / "docs/gateway.md").read_text("utf-8")
    for package, source in zip(("openai", "langchain_openai"), re.findall(r"```python\n(.*?)```", page, re.DOTALL),
                               strict=True):
        pytest.importorskip(package)
        own = source.replace("http://127.0.0.1:8000/v1", served.url).replace("not needed on loopback", KEY)
        assert own.count(served.url) == own.count(KEY) == 1 and f"from {package} import" in own
        exec(compile(own, "gateway.md", "exec"), {"__name__": "manual"})
        assert capsys.readouterr().out.startswith("12\n")
