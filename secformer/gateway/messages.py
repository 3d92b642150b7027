"""The messages of a conversation, as callers send them."""

from __future__ import annotations

from typing import Any

from secformer.gateway.fields import wrong

EMPTY: tuple[Any, ...] = (None, [], {}, "")  # values of further fields that say nothing, as in answers sent back


def messages_of(given: Any) -> list[dict[str, str]]:
    """Messages with a role and a text each. Raises Refusal for anything that the model would not see."""
    if not isinstance(given, list) or not given:
        wrong("messages", "a list of messages, and not empty")
    return [_message(i, each) for i, each in enumerate(given)]


def _message(i: int, given: Any) -> dict[str, str]:
    name = f"messages[{i}]"
    if not isinstance(given, dict) or not isinstance(given.get("role"), str):
        wrong(name, "an object with a role and a content")
    for key, value in given.items():
        if key not in ("role", "content") and value not in EMPTY:
            wrong(name, f"an object with a role and a content; {key[:64]!r} is not supported here")
    return {"role": given["role"], "content": _content(name, given.get("content"))}


def _content(name: str, given: Any) -> str:
    if isinstance(given, str):
        return given
    if not isinstance(given, list) or not given:
        wrong(f"{name}.content", "a string, or a list of parts of the type 'text'")
    for part in given:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            wrong(f"{name}.content", "a string, or a list of parts of the type 'text'; images, sound and files are not "
                                     "supported here")
    return "".join(part["text"] for part in given)
