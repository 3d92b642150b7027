"""Prompts as tokens: texts, conversations as `transformers` renders them, ids; what is refused; what is public."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from text_lab import END, START, WORDS, byte_tokenizer

from secformer.models.data.tokenizer import Tokenizer
from secformer.models.generation.prompts import Rendered, public_start, render
from secformer.mpc.errors import InputError, ModelError

needs_jinja = pytest.mark.skipif(importlib.util.find_spec("jinja2") is None, reason="jinja2 is not installed")
HI = [{"role": "user", "content": "hello 中"}]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return byte_tokenizer(tmp_path_factory.mktemp("bytes"), 100)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """One without a chat template, whose texts begin with <|start|>."""
    return byte_tokenizer(tmp_path_factory.mktemp("plain"), 20, template=None, start=True)


def test_a_text(tokenizer: Tokenizer, plain: Tokenizer) -> None:
    found = render(tokenizer, "hello world", 3)
    assert found == Rendered(tuple(tokenizer.tokens("hello world")), "hello world") and len(found.ids) == 2
    assert render(plain, "hello", 3).ids == (START, *plain.tokens("hello", special=False))


def test_ids(plain: Tokenizer) -> None:
    for ids in ([5, 7], [[5, 7]]):
        assert render(plain, {"input_ids": ids}, 3) == Rendered((5, 7), None)
    for bad in ({"input_ids": [[5], [7]]}, {"input_ids": [[5, 7]], "attention_mask": [[0, 1]]}):
        with pytest.raises(InputError, match="one text without padding"):
            render(plain, bad, 3)
    with pytest.raises(InputError, match=rf"must lie in 0\.\.{WORDS - 1}"):
        render(plain, {"input_ids": [WORDS]}, 3)


@needs_jinja
@pytest.mark.parametrize("messages", [
    HI, [{"role": "system", "content": "  Rhyme. "}, *HI], [*HI, {"role": "assistant", "content": "ho"}, *HI],
])
def test_messages_are_rendered_as_transformers_does(messages: list[dict[str, str]], tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer

    found = render(tokenizer, messages, 3)
    theirs = AutoTokenizer.from_pretrained(str(tokenizer.folder)).apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False)
    assert list(found.ids) == list(theirs)
    assert found.text is not None and found.text.endswith("<|start|>assistant\n")


@needs_jinja
def test_special_tokens_come_from_the_template_alone(tmp_path: Path) -> None:
    begun = byte_tokenizer(tmp_path, 100, start=True)
    assert render(begun, HI, 3).ids[:2] == (START, *begun.tokens("s", special=False))


@needs_jinja
@pytest.mark.parametrize(("messages", "words"), [
    ([*HI, {"role": "usr", "content": "x"}], 
     "message 1 has the role 'usr', which the chat template in .* does not name"),
    ([{"role": "narrator", "content": "x"}], "does not take messages with the roles 'narrator'.*no narrator"),
    ([{"role": "ghost", "content": "x"}, *HI], "leaves message 0 out, which has the role 'ghost'"),
    ([], "list of messages is empty"),
    ([{"role": "user"}], r"message 0 must be a dict with a 'role' and a 'content', both str; got \['role'\]"),
    ([{"role": "user", "content": None}], "message 0 must be"),
    ([{"role": "user", "content": "x", "name": "y"}], r"message 0 must be.*'name'"),
    ([*HI, "and?"], "message 1 must be .* got str"),
    ([{"role": "user", "content": "\ud800"}], "the content of message 0 is not valid Unicode"),
])
def test_messages_that_are_refused(messages: Any, words: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=re.compile(words, re.DOTALL)):
        render(tokenizer, messages, 3)


def test_a_tokenizer_without_a_template(plain: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"has no chat template, so this model takes no messages.*template\.jinja"):
        render(plain, HI, 3)


def test_without_jinja(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ImportError("no jinja")

    monkeypatch.setattr(tokenizer.opened, "apply_chat_template", refuse)
    with pytest.raises(ModelError, match=re.escape('pip install "secformer[chat]"')):
        render(tokenizer, HI, 3)


@pytest.mark.parametrize(("prompt", "words"), [
    ("", "the prompt is empty"), (7, "got int"), (b"x", "got bytes"), (None, "got NoneType"),
    ("\ud800", "the prompt is not valid Unicode"),
])
def test_prompts_that_are_refused(prompt: Any, words: str, plain: Tokenizer) -> None:
    with pytest.raises(InputError, match=words):
        render(plain, prompt, 3)


def test_the_context_holds_prompt_and_new_tokens(plain: Tokenizer) -> None:
    assert len(render(plain, "x" * 16, 3).ids) == 17
    with pytest.raises(InputError, match=r"has 18 tokens and max_new_tokens is 3, together 21; .* context holds 20"):
        render(plain, "x" * 17, 3)


def test_words_that_the_model_lacks(tmp_path: Path) -> None:
    small = byte_tokenizer(tmp_path, words=WORDS - 10)
    with pytest.raises(InputError, match=rf"must lie in 0\.\.{WORDS - 11}"):
        render(small, "hello", 3)


def test_nothing_is_shown(plain: Tokenizer) -> None:
    assert repr(render(plain, "hello", 3)) == "Rendered()"


# ---- public beginnings -----------------------------------------------------------------------------------------------


@needs_jinja
@pytest.mark.parametrize("system", [None, "Be kind."])
@pytest.mark.parametrize("text", ["hello", "\n\nx", "\u00e9", "", "Zoo", "<|end|>"])
def test_conversations_share_their_public_start(text: str, system: str | None, tokenizer: Tokenizer) -> None:
    start = public_start(tokenizer, system, chat=True)
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    ids = render(tokenizer, messages, 1).ids
    assert ids[: len(start)] == start and len(start) > 20
    assert start[0] == START and start.count(END) == 1


def test_texts_share_what_the_tokenizer_puts_before_them(tokenizer: Tokenizer, plain: Tokenizer) -> None:
    assert public_start(tokenizer, chat=False) == ()
    assert public_start(plain, chat=False) == (START,)
    with pytest.raises(InputError, match="plain texts have none"):
        public_start(plain, "Be kind.", chat=False)
