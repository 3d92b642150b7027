"""Chat templates as clients run them: a model's own template, in Jinja's sandbox, makes one text of a conversation.

A template is a program that the model's owner wrote. It gets the messages and the names of special tokens, and Jinja's
sandbox keeps it from everything else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

KEPT = ("range", "dict", "namespace")  # of what Jinja offers to templates


def rendered(template: str, messages: Sequence[Mapping[str, str]], special: Mapping[str, str]) -> str:
    """The conversation up to where the model's answer begins, as transformers' `apply_chat_template` writes it.

    special  texts of special tokens by their roles, such as bos_token

    Raises ImportError where Jinja 3.1.6 or later is not installed, and whatever the template raises.
    """
    facts: dict[str, Any] = {"messages": [dict(message) for message in messages], "tools": None, "documents": None,
                             "add_generation_prompt": True}
    return str(_environment().from_string(template).render(**special, **facts))


def _environment() -> Any:
    from jinja2 import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):  # type: ignore[misc]
        """{% generation %} marks what a model was trained on; here it stands for what is in it."""

        tags = frozenset({"generation"})

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None,
                sort_keys: bool = False) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    found = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    found.globals = {name: found.globals[name] for name in KEPT} | {
        "raise_exception": refuse, "strftime_now": lambda how: datetime.now().strftime(how)}
    found.filters["tojson"] = to_json
    return found
