"""Chat templates as the texts between messages, where they are no more than that."""

from __future__ import annotations

from pathlib import Path

import pytest
from text_lab import TEMPLATE, byte_tokenizer

from secformer.page.conversation import frame, framed

PLAIN = ("{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
         "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}")


def test_a_template_that_frames_messages_is_taken(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    tokenizer = byte_tokenizer(tmp_path, template=PLAIN)
    parts = frame(tokenizer)
    assert parts == {"begin": "<|start|>user\n", "answer": "<|end|>\n<|start|>assistant\n",
                     "again": "<|end|>\n<|start|>user\n"}
    messages = (" one ", "two", "three", "four", "five\n")
    given = [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(messages)]
    assert framed(parts, messages) == tokenizer.chat(given)


@pytest.mark.parametrize("template", [
    None, "{{ messages[0].content | upper }}", "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
    "{{ messages[-1].content }}", "{{ raise_exception('none') }}", PLAIN.replace("m.content", "m.content | length"),
    "{% if messages[0].content == 'a' %}odd{% endif %}" + PLAIN, PLAIN.replace("{{ m.content }}", ""),
])
def test_other_templates_are_not(tmp_path: Path, template: str | None) -> None:
    pytest.importorskip("jinja2")
    assert frame(byte_tokenizer(tmp_path, template=template)) is None


def test_a_template_that_trims_messages_frames_trimmed_ones(tmp_path: Path) -> None:
    """The page trims what is typed, so a template may."""
    pytest.importorskip("jinja2")
    parts = frame(byte_tokenizer(tmp_path, template=TEMPLATE))
    assert parts is not None and parts["begin"].startswith("<|start|>system\nBe brief.")
