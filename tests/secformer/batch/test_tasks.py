"""What is asked of a row: units, and generation, whose text is the same whenever it is asked again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from batch_lab import cells, job, ran, read_rows, write_rows
from gateway_lab import plain
from tiny_chat_lab import measured_chat

from secformer.batch.tasks import NAMES, READING, Generate, Unit
from secformer.commands.batch import PAIR, TASKS
from secformer.mpc.errors import InputError, ModelError, SettingsError
from secformer.roles.settings import ClientSettings

PROMPTS = ["hello", "who are you", "hello there", "hi"]
SAMPLING = {"max_new_tokens": 6, "temperature": 1.0}


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return measured_chat(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def listed(chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cells(tmp_path_factory.mktemp("lists") / "cells", chat)


def generated(folder: Path, chat: Path, listed: Path, task: Generate, name: str) -> list[dict[str, Any]]:
    model = plain(chat)

    def opened(settings: ClientSettings) -> Any:
        return model

    source = write_rows(folder / f"{name}.jsonl", [{"text": text} for text in [*PROMPTS, "x" * 400]])
    ran(job(source, folder / f"{name}.out.jsonl", listed, task, chunk=2), opened)
    return read_rows(folder / f"{name}.out.jsonl")


def test_the_command_knows_every_task() -> None:
    assert tuple(sorted(TASKS)) == tuple(sorted(NAMES)) and len(READING[PAIR].inputs) == 2


def test_units_show_no_text() -> None:
    assert repr(Unit(5, prompt=(28123,), seed=29456)) == "Unit(length=5)"


def test_generation_writes_the_same_text_again(tmp_path: Path, chat: Path, listed: Path) -> None:
    first, again, other = (generated(tmp_path, chat, listed, Generate(SAMPLING, seed=seed), name)
                           for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first == again and first != other
    for i, row in enumerate(first[:-1]):
        wanted = plain(chat).generate([{"role": "user", "content": PROMPTS[i]}], seed=(1 << 64) + i,
                                      **SAMPLING)  # type: ignore[arg-type]
        assert (row["generated"], row["tokens"], row["end"]) == (wanted.text, len(wanted.tokens), wanted.end.value)
        assert row["error"] is None
    assert "max_new_tokens" in first[-1]["error"] and first[-1]["generated"] is None, "prompts are not cut"


def test_generation_continues_or_has_a_system_prompt(tmp_path: Path, chat: Path, listed: Path) -> None:
    own = {"max_new_tokens": 4}
    found = generated(tmp_path, chat, listed, Generate(own, continued=True), "a")
    assert found[0]["generated"] == plain(chat).generate("hello", max_new_tokens=4).text
    found = generated(tmp_path, chat, listed, Generate(own, system="be brief"), "b")
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert found[0]["generated"] == plain(chat).generate(messages, max_new_tokens=4).text


def test_options_of_generation() -> None:
    assert json.loads(json.dumps(Generate(SAMPLING, seed=3).options)) == {
        "task": "generate", "sampling": SAMPLING, "seed": 3, "system": None, "continued": False}
    with pytest.raises(SettingsError, match="temperature"):
        Generate({"temperature": -1})
    with pytest.raises(SettingsError, match="seed"):
        Generate(seed=-1)
    with pytest.raises(InputError, match="system prompt"):
        Generate(continued=True, system="x")


def test_a_classifier_does_not_generate(chat: Path) -> None:
    own = plain(chat).architecture
    Generate().require(own)
    with pytest.raises(ModelError, match="classify needs a model of the class"):
        READING["classify"]().require(own)
