"""Texts that continue a prompt, and answers to messages, in OpenAI's two shapes: whole, or as chunks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from secformer.gateway.desk import Desk
from secformer.gateway.fields import Fields, wrong
from secformer.gateway.messages import messages_of
from secformer.gateway.token_ids import require_own
from secformer.gateway.writing import write, written
from secformer.models.generation.prompts import Prompt, render
from secformer.models.generation.stops import End
from secformer.models.run.decoding import decoder_of
from secformer.models.run.generate import Generated, Options
from secformer.roles.halves import fresh_id

USUAL = 16      # tokens that continue a prompt where the caller does not say how many
PROMPTS = 128   # of a request
STOPS = 16      # texts that may end one
HOTTEST = 2.0   # the highest temperature
FINISHED = {End.TOKEN: "stop", End.STOP: "stop", End.LENGTH: "length"}
NEITHER: dict[str, tuple[Any, ...]] = {  # options that are not there, and the values that ask for nothing
    "n": (1,), "logit_bias": ({},), "presence_penalty": (0, 0.0), "frequency_penalty": (0, 0.0),
    "service_tier": ("auto", "default"),
}


@dataclass(frozen=True)
class Form:
    """One of the two shapes.

    prefix           of an answer's id
    whole, chunk     what an answer, and a piece of one, are called
    choice           an answer's text as part of a choice
    first, piece, last  the same of a chunk: before the first piece, of a piece, and behind the last one
    """

    prefix: str
    whole: str
    chunk: str
    choice: Callable[[str], dict[str, Any]]
    first: dict[str, Any] | None
    piece: Callable[[str], dict[str, Any]]
    last: dict[str, Any]


COMPLETION = Form("cmpl-", "text_completion", "text_completion", lambda text: {"text": text}, None,
                  lambda text: {"text": text}, {"text": ""})
CHAT = Form("chatcmpl-", "chat.completion", "chat.completion.chunk",
            lambda text: {"message": {"role": "assistant", "content": text, "refusal": None}},
            {"delta": {"role": "assistant", "content": ""}}, lambda text: {"delta": {"content": text}}, {"delta": {}})


@dataclass(frozen=True, eq=False)
class Order:
    """What a caller wants to be written.

    prompts  token ids
    options  of each prompt
    stream   in chunks
    usage    the last chunk has the usage
    """

    form: Form
    desk: Desk
    prompts: tuple[tuple[int, ...], ...] = field(repr=False)
    options: tuple[Options, ...] = field(repr=False)
    stream: bool
    usage: bool
    id: str = field(default_factory=fresh_id)
    made: int = field(default_factory=lambda: int(time.time()))

    def run(self, left: threading.Event) -> dict[str, Any]:
        """The whole answer. Raises as `write`."""
        found = [written(self.desk, prompt, options, left)
                 for prompt, options in zip(self.prompts, self.options, strict=True)]
        return self._facts(self.form.whole) | {
            "choices": [self._choice(i, self.form.choice(each.text), each) for i, each in enumerate(found)],
            "usage": _usage(found)}

    def chunks(self, left: threading.Event) -> Iterator[dict[str, Any]]:
        """The answer in chunks, one prompt after the other. Raises as `write`."""
        form, found = self.form, []
        facts = self._facts(form.chunk) | ({"usage": None} if self.usage else {})
        for i, (prompt, options) in enumerate(zip(self.prompts, self.options, strict=True)):
            running, begun = write(self.desk, prompt, options, left, whole=False), False
            while True:
                try:
                    piece = next(running)
                except StopIteration as end:
                    found.append(end.value)
                    break
                if not begun and form.first is not None:
                    yield facts | {"choices": [self._choice(i, form.first)]}
                begun = True
                yield facts | {"choices": [self._choice(i, form.piece(piece))]}
            if not begun and form.first is not None:
                yield facts | {"choices": [self._choice(i, form.first)]}
            yield facts | {"choices": [self._choice(i, form.last, found[-1])]}
        if self.usage:
            yield facts | {"choices": [], "usage": _usage(found)}

    def _facts(self, kind: str) -> dict[str, Any]:
        return {"id": f"{self.form.prefix}{self.id}", "object": kind, "created": self.made, "model": self.desk.name}

    def _choice(self, index: int, said: dict[str, Any], found: Generated | None = None) -> dict[str, Any]:
        return {"index": index, **said, "logprobs": None,
                "finish_reason": None if found is None else FINISHED[found.end]}


def _usage(found: list[Generated]) -> dict[str, int]:
    prompts, written_ = sum(len(each.prompt) for each in found), sum(len(each.tokens) for each in found)
    return {"prompt_tokens": prompts, "completion_tokens": written_, "total_tokens": prompts + written_}


def completion(fields: Fields, desk: Desk) -> Order:
    """The order of a request for completions. Raises Refusal; ModelError where the model writes no text; InputError."""
    prompts: list[Prompt] = prompts_of(fields)
    most = fields.whole("max_tokens", 1, default=USUAL)
    fields.neutral({"best_of": (1,), "echo": (False,), "suffix": ("",), "logprobs": ()})
    return _order(COMPLETION, fields, desk, prompts, most)


def chat(fields: Fields, desk: Desk) -> Order:
    """The order of a request for an answer to messages. Raises as `completion`."""
    messages = messages_of(fields.needed("messages"))
    most, older = fields.whole("max_completion_tokens", 1), fields.whole("max_tokens", 1)
    fields.neutral({"tools": ([],), "tool_choice": ("none", "auto"), "parallel_tool_calls": (True, False),
                    "functions": ([],), "function_call": ("none", "auto"), "response_format": ({"type": "text"},),
                    "modalities": (["text"],), "logprobs": (False,), "top_logprobs": (0,), "store": (False,)})
    return _order(CHAT, fields, desk, [messages], most if most is not None else older)


def _order(form: Form, fields: Fields, desk: Desk, prompts: list[Prompt], most: int | None) -> Order:
    options = options_of(fields)
    stream, usage = fields.flag("stream"), _usage_wanted(fields)
    fields.neutral(NEITHER)
    fields.end()
    decoder_of(desk.architecture)
    if usage and not stream:
        wrong("stream_options", "left out where 'stream' is not true")
    context, found = desk.tokenizer.inputs.context, []
    for prompt in prompts:
        with desk.reading:
            if isinstance(prompt, Mapping):
                require_own(desk.tokenizer, [prompt["input_ids"]])
            ids = render(desk.tokenizer, prompt, 1 if most is None else most).ids
        found.append((ids, Options(**options, max_new_tokens=context - len(ids) if most is None else most)))
    return Order(form, desk, tuple(ids for ids, _ in found), tuple(each for _, each in found), stream, usage)


def options_of(fields: Fields) -> Options:
    """How tokens are chosen: as in OpenAI's interface, sampled at temperature 1 from all tokens unless the caller says
    otherwise."""
    options = Options(temperature=fields.number("temperature", 0, HOTTEST, 1.0), seed=fields.whole("seed", 0),
                      top_k=fields.whole("top_k", 0, default=0), top_p=fields.number("top_p", 0, 1))
    penalty = fields.number("repetition_penalty", 0.01, 100)
    if penalty is not None:
        options["repetition_penalty"] = penalty
    stop = fields.take("stop")
    if stop is not None:
        listed = [stop] if isinstance(stop, str) else stop
        if not isinstance(listed, list) or len(listed) > STOPS or not all(
                isinstance(each, str) and each for each in listed):
            wrong("stop", f"a string, or a list of at most {STOPS} strings, none of them empty")
        options["stop"] = listed
    return options


def _usage_wanted(fields: Fields) -> bool:
    given = fields.take("stream_options")
    if given is None:
        return False
    if not isinstance(given, dict) or not set(given) <= {"include_usage"} or not isinstance(
            given.get("include_usage", False), bool):
        wrong("stream_options", "an object with the flag 'include_usage' and nothing else")
    return bool(given.get("include_usage", False))


def prompts_of(fields: Fields) -> list[Prompt]:
    found = fields.inputs("prompt")
    prompts: list[Prompt] = [{"input_ids": ids} for ids in found["input_ids"]] if isinstance(found, dict) else [*found]
    return prompts if len(prompts) <= PROMPTS else wrong("prompt", f"at most {PROMPTS} prompts")
