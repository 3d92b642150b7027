"""A chat template as the texts between messages: the page cannot run templates, which are programs.

A conversation of user and assistant in turns is `begin`, then the user's messages and the assistant's answers with
`answer` and `again` between them, then `answer`.
"""

from __future__ import annotations

from secformer.models.data.tokenizer import Tokenizer
from secformer.mpc.errors import InputError, ModelError

MARKS = ("qfirst", "afirst", "qsecond")  # messages that stand in no template
PROBES = ("a", "B c", "1\n2", "\u00e9\u4e2d")


def frame(tokenizer: Tokenizer) -> dict[str, str] | None:
    """The texts around messages; None where there is no template, or it does more than put texts around messages."""
    if tokenizer.chat_template is None:
        return None
    try:
        text = tokenizer.chat(_turns(MARKS))
        if any(text.count(mark) != 1 for mark in MARKS):
            return None
        (begin, rest), parts = text.split(MARKS[0]), {}
        parts["begin"] = begin
        parts["answer"], rest = rest.split(MARKS[1])
        parts["again"], end = rest.split(MARKS[2])
        tried = [(mark,) for mark in PROBES] + [(a, b, c) for a in PROBES for b in PROBES for c in PROBES[:2]]
        holds = end == parts["answer"] and all(framed(parts, each) == tokenizer.chat(_turns(each)) for each in tried)
    except (InputError, ModelError, ValueError):
        return None
    return parts if holds else None


def framed(parts: dict[str, str], messages: tuple[str, ...]) -> str:
    """The text of messages of user and assistant in turns, up to where the next answer begins."""
    text = parts["begin"] + messages[0]
    for i, message in enumerate(messages[1:]):
        text += parts["again" if i % 2 else "answer"] + message
    return text + parts["answer"]


def _turns(messages: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(messages)]
