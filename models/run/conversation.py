"""A conversation with a model that generates text. What it has read and said stays with the parties between turns."""

from __future__ import annotations

from typing import Literal, Unpack, overload

from secformer.models.generation.prompts import Messages
from secformer.models.run.decoding import Decoding
from secformer.models.run.drafters import Draft
from secformer.models.run.generate import Generated, Generates, Generation, Options
from secformer.models.run.progress import Progress
from secformer.mpc.errors import InputError


class Conversation:
    """Questions and answers, by the chat template of the model's tokenizer. A turn computes new tokens only.

    Use it as long as the model is open. It holds one text of the model, which `close` gives back.

    messages  what was said, each with a `role` and a `content`
    """

    def __init__(self, model: Generates, *, system: str | None = None):
        self.model, self.messages = model, [] if system is None else [{"role": "system", "content": system}]
        self._text: Decoding | None = None
        self._running: Generation | None = None

    @overload
    def ask(self, question: str, *, stream: Literal[False] = False, draft: Draft = "auto",
            progress: bool | Progress = False, **sampling: Unpack[Options]) -> Generated: ...
    @overload
    def ask(self, question: str, *, stream: Literal[True], draft: Draft = "auto", progress: bool | Progress = False,
            **sampling: Unpack[Options]) -> Generation: ...
    def ask(self, question: str, *, stream: bool = False, draft: Draft = "auto", progress: bool | Progress = False,
            **sampling: Unpack[Options]) -> Generated | Generation:
        """The model's answer, as `generate` gives it. Ends an answer that is still running. A draft model is opened
        once if it is given as a `DraftModel`, and at each question if it is given as a folder.

        An answer that was ended early stays as far as it came. A question without any answer is forgotten. Raises as
        `generate`, and InputError where the conversation no longer fits the model's context.
        """
        if not isinstance(question, str):
            raise InputError(f"a question must be a str, got {type(question).__name__}")
        if self._running is not None:
            self._running.close()
        if self._text is None or self._text.ended:
            self._text = self.model.decoding()
        asked = [*self.messages, {"role": "user", "content": question}]
        running = self.model.generate(asked, stream=True, draft=draft, text=self._text, progress=progress, **sampling)
        running.leaving.callback(self._heard, asked, running)
        self._running = running
        return running if stream else running.run()

    def _heard(self, asked: Messages, running: Generation) -> None:
        if running.tokens:
            self.messages = [*map(dict, asked), {"role": "assistant", "content": running.text}]

    def close(self) -> None:
        """Ends an answer that is running, and what the parties keep of the conversation. The messages stay; another
        question goes on from them."""
        if self._running is not None:
            self._running.close()
        if self._text is not None:
            self._text.close()
