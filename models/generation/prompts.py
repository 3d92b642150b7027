"""A prompt as token ids: a text, a conversation in the tokenizer's own template, or ids; and its public beginning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from secformer.models.data.tokenizer import Tokenizer, id_rows
from secformer.models.data.unicode import require_unicode
from secformer.mpc.errors import InputError, TooLong

Messages = Sequence[Mapping[str, str]]
Prompt = str | Messages | Mapping[str, Any]
ROLES = ("system", "developer", "user", "assistant", "tool")  # those that templates take without naming them
PROBES = ("a", "B", "1", " c", "\n", "\n\n", ".", "\u00e9", "\u4e2d", "<")  # texts that begin in different ways


@dataclass(frozen=True)
class Rendered:
    """A prompt that the model can take. `repr` shows nothing, because the prompt is secret.

    ids   its tokens
    text  the text that the tokens were made of; None for a prompt that was given as ids
    """

    ids: tuple[int, ...] = field(repr=False)
    text: str | None = field(repr=False)


def as_prompt(tokenizer: Tokenizer, prompt: str, *, system: str | None, continued: bool = False) -> Prompt:
    """A text for the model to continue, or, where the model has a chat template, messages for it to answer."""
    if continued or (system is None and tokenizer.chat_template is None):
        return prompt
    before = [] if system is None else [{"role": "system", "content": system}]
    return [*before, {"role": "user", "content": prompt}]


def render(tokenizer: Tokenizer, prompt: Prompt, new: int) -> Rendered:
    """The prompt's tokens.

    prompt  a text, which the model continues; messages, each with a `role` and a `content`, which the model answers; or
            a dict with the ids of one text, as a tokenizer returns it
    new     the most tokens that will be generated

    Raises InputError for a prompt that is empty, is none of these, has ids that the model has no words for, or whose
    tokens and the new ones do not fit the model's context; and ModelError for a tokenizer that cannot be used.
    """
    text: str | None = None
    if isinstance(prompt, Mapping):
        rows = id_rows(prompt, tokenizer.inputs)
        if len(rows) != 1 or not rows[0].mask.all():
            raise InputError("a prompt of token ids must be one text without padding; give one list of ids")
        ids = rows[0].ids.tolist()
    elif isinstance(prompt, str):
        require_unicode(prompt, "the prompt")
        text, ids = prompt, tokenizer.tokens(prompt) if prompt else []
    elif isinstance(prompt, Sequence) and not isinstance(prompt, bytes | bytearray):
        text = _conversation(tokenizer, prompt)
        ids = tokenizer.tokens(text, special=False)  # the template writes the special tokens itself
    else:
        raise InputError(f"a prompt must be a str, a list of messages or a dict of token ids; got "
                         f"{type(prompt).__name__}")
    if not ids:
        raise InputError("the prompt is empty, so there is nothing to continue; give at least one token of text")
    (row,) = id_rows({"input_ids": ids}, tokenizer.inputs)
    if len(row) + new > tokenizer.inputs.context:
        raise TooLong(f"the prompt has {len(row)} tokens and max_new_tokens is {new}, together {len(row) + new}; this "
                      f"model's context holds {tokenizer.inputs.context}. Shorten the prompt, or generate fewer tokens")
    return Rendered(tuple(row.ids.tolist()), text)


def _conversation(tokenizer: Tokenizer, messages: Sequence[Any]) -> str:
    if not messages:
        raise InputError("the list of messages is empty; give at least one message with a role and a content")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or set(message) != {"role", "content"} or not all(
                isinstance(part, str) for part in message.values()):
            raise InputError(f"message {i} must be a dict with a 'role' and a 'content', both str; got "
                             f"{sorted(map(str, message)) if isinstance(message, Mapping) else type(message).__name__}")
        require_unicode(message["content"], f"the content of message {i}")
    template = tokenizer.chat_template
    if template is None:
        raise InputError(f"the tokenizer in {tokenizer.folder} has no chat template, so this model takes no messages; "
                         f"give the prompt as one text, or copy the model's own tokenizer files (chat_template.jinja, "
                         f"or chat_template in tokenizer_config.json)")
    for i, message in enumerate(messages):
        if (role := message["role"]) not in ROLES and f"'{role}'" not in template and f'"{role}"' not in template:
            raise InputError(f"message {i} has the role {role!r}, which the chat template in {tokenizer.folder} does "
                             f"not name; usual roles are {', '.join(ROLES)}")
    text = tokenizer.chat(messages)
    for i, message in enumerate(messages):  # an assistant's earlier thoughts may be left out, as templates do
        if message["role"] != "assistant" and message["content"].strip() not in text:
            raise InputError(f"the chat template in {tokenizer.folder} leaves message {i} out, which has the role "
                             f"{message['role']!r}; the model would never see it. Put its content into another message")
    return text


def public_start(tokenizer: Tokenizer, system: str | None = None, *, chat: bool) -> tuple[int, ...]:
    """The first tokens that every prompt has, whatever its text: what the owner can declare as public.

    system  a public system prompt, which comes before the user's first message; None: the template's own, if any
    chat    prompts are conversations; False: they are texts, and the tokenizer puts tokens such as BOS before them

    Tokens that a text could merge with its own are left out. Raises InputError as `render`.
    """
    before = [] if system is None else [{"role": "system", "content": system}]
    if system is not None and not chat:
        raise InputError("a system prompt is part of a conversation; prompts that are plain texts have none")
    found = [tokenizer.tokens(_conversation(tokenizer, [*before, {"role": "user", "content": probe}]), special=False)
             if chat else tokenizer.tokens(probe) for probe in PROBES]
    return tuple(found[0][: min(_common(found[0], other) for other in found)])


def common_start(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The first tokens that every prompt has, also conversations with a system prompt of their own; of a tokenizer
    without a chat template, those that it puts before every text."""
    if tokenizer.chat_template is None:
        return public_start(tokenizer, chat=False)
    start = public_start(tokenizer, chat=True)
    try:
        own = [public_start(tokenizer, probe, chat=True) for probe in PROBES[:2]]
    except InputError:  # templates may take no system prompt
        return start
    return start[: min(_common(start, other) for other in own)]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first entries are equal."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
