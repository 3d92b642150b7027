"""Text from a decoder: prompts in, pieces of text out, with what each token cost.

The choice of tokens is the client's own arithmetic (`models/generation`). Parties see how many tokens a step has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack, overload

import numpy as np

from secformer.models.data.tokenizer import Tokenizer
from secformer.models.generation.drafting import Drafter, accepted
from secformer.models.generation.prompts import Prompt, Rendered, render
from secformer.models.generation.sampling import Chooser, Sampling, log_softmax
from secformer.models.generation.stops import End, TextStream, end_tokens
from secformer.models.run.decoding import Decoding, Step
from secformer.models.run.drafters import Draft, advice, drafter_of
from secformer.models.run.drafts import Drafts
from secformer.models.run.guard import note
from secformer.models.run.options import require_known
from secformer.models.run.progress import Progress, shown, silent
from secformer.mpc.errors import InputError, Untrusted
from secformer.mpc.meter import COUNTERS, Cost


class Options(TypedDict, total=False):
    """The fields of `Sampling`, as keyword arguments."""

    max_new_tokens: int
    temperature: float | None
    top_k: int | None
    top_p: float | None
    repetition_penalty: float
    stop: str | Sequence[str]
    seed: int | None


@dataclass(frozen=True)
class TokenCost:
    """What a step cost, and how many tokens it gave: more than one, where drafted tokens were right."""

    tokens: int
    cost: Cost


@dataclass(frozen=True)
class Generated:
    """What was generated. `repr` shows no text.

    text          up to where it ended
    tokens        ids, the token that ended it included
    logprobs      the natural logarithm of each token's probability, by the model's own logits; with the guard "nan",
                  NaN where the step left the ranges
    end           why it ended
    prompt        the prompt's ids
    prompt_cost   what the prompt cost; it gives the first token
    steps         what each step behind it cost
    breaches      where values left the ranges that the model was measured for; nothing, where it can be trusted
    notes         what the user should know
    """

    text: str = field(repr=False)
    tokens: tuple[int, ...] = field(repr=False)
    logprobs: tuple[float, ...] = field(repr=False)
    end: End
    prompt: tuple[int, ...] = field(repr=False)
    prompt_cost: Cost = field(repr=False)
    steps: tuple[TokenCost, ...] = field(repr=False)
    breaches: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def trusted(self) -> bool:
        return not self.breaches

    @property
    def cost(self) -> Cost:
        """Of everything."""
        return sum((step.cost for step in self.steps), self.prompt_cost)

    @property
    def per_token(self) -> dict[str, float] | None:
        """What a token behind the first one cost on average, by the names of `Cost`'s figures, such as "rounds"; None
        where there was none."""
        tokens = sum(step.tokens for step in self.steps)
        return {name: sum(getattr(step.cost, name) for step in self.steps) / tokens
                for name in COUNTERS} if tokens else None


@dataclass(frozen=True)
class Scored:
    """How likely a text is, token by token. Its first token has no prediction, and does not count.

    log_likelihood  the sum of the natural logarithms of the tokens' probabilities; NaN for a text that cannot be
                    trusted, where the guard is "nan"
    tokens          how many count
    breaches, notes as in `Generated`
    """

    log_likelihood: float
    tokens: int
    cost: Cost = field(repr=False)
    breaches: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def trusted(self) -> bool:
        return not self.breaches

    @property
    def perplexity(self) -> float:
        """e to the mean negative log-likelihood; NaN where no token counts."""
        return float(np.exp(-self.log_likelihood / self.tokens)) if self.tokens else float("nan")


class Generation(Iterator[str]):
    """A generation that runs: an iterator of pieces of text, which ends when the text does. Also a context manager.

    `result` is complete then. `close`, an error or an interrupt ends it earlier: what was generated until then stays.

    leaving  what is done when it has ended, such as to close a model that nobody else has
    """

    def __init__(self, decoding: Decoding, rendered: Rendered, tokenizer: Tokenizer, sampling: Sampling,
                 drafter: Drafter | None, guard: str, notes: Sequence[str] = (), progress: bool | Progress = False):
        self._decoding, self._rendered, self._sampling, self._guard = decoding, rendered, sampling, guard
        self._chooser = Chooser(sampling)
        self._drafts = Drafts(None if sampling.do_sample else drafter, tokenizer.inputs.words)
        self._stream = TextStream(tokenizer, rendered.ids, stop=sampling.stops, ends=end_tokens(tokenizer.folder))
        self._notes, self._progress, self.leaving = tuple(notes), progress, ExitStack()
        self._logprobs: list[float] = []
        self._steps: list[TokenCost] = []
        self._breaches: dict[str, None] = {}
        self._prompt_cost: Cost | None = None

    def __next__(self) -> str:
        """The next piece, which may be empty: a step may complete no character, or begin what may be a stop text."""
        if self._stream.end is not None:
            raise StopIteration
        try:
            piece = self._prompted() if self._prompt_cost is None else self._stepped()
        except BaseException:
            self.close()
            raise
        if self._stream.end is not None:
            self.leaving.close()
        return piece

    def _prompted(self) -> str:
        """The prompt, and the first token behind it."""
        ids = list(self._rendered.ids)
        with shown(self._progress) as tell:
            self._decoding.tell = tell
            try:
                step = self._decoding.become(ids)
            finally:
                self._decoding.tell = silent
        self._prompt_cost = step.cost
        return self._chosen(step, ids, [])[1]

    def _stepped(self) -> str:
        """A step behind the prompt.

        1. Draft tokens that may follow
        2. Take the last token and the drafted ones
        3. Choose tokens, as far as the draft agrees with them
        4. Forget the drafted tokens that were wrong
        """
        known = [*self._rendered.ids, *self._stream.ids]
        room = self._sampling.max_new_tokens - len(self._stream.ids)
        drafted = self._drafts.draft(known, room - 1)                                                       # 1
        step = self._decoding.take([known[-1], *drafted], last=1 + len(drafted))                            # 2
        right, piece = self._chosen(step, known, drafted)                                                   # 3
        self._drafts.learn(drafted, right)
        if right < len(drafted):
            self._decoding.back(self._decoding.length - (len(drafted) - right))                             # 4
        self._steps.append(TokenCost(len(self._rendered.ids) + len(self._stream.ids) - len(known), step.cost))
        return piece

    def _chosen(self, step: Step, known: Sequence[int], drafted: Sequence[int]) -> tuple[int, str]:
        """How many of the drafted tokens are right, and the piece that the chosen ones complete."""
        self._breaches |= dict.fromkeys(step.breaches)
        if step.breaches and self._guard == "raise":
            raise Untrusted(note(None, step.breaches))
        choices, pieces = accepted(self._chooser, step.logits, known, drafted), []
        spoilt = bool(step.breaches) and self._guard == "nan"
        for choice in choices:
            if self._stream.end is None:
                self._logprobs.append(float("nan") if spoilt else choice.logprob)
                pieces.append(self._stream.take(choice.token))
        if self._stream.end is None and len(self._stream.ids) >= self._sampling.max_new_tokens:
            pieces.append(self._stream.finish())
        return len(choices) - 1, "".join(pieces)

    @property
    def text(self) -> str:
        """What was generated so far."""
        return self._stream.text

    @property
    def tokens(self) -> tuple[int, ...]:
        """The ids of what was generated so far."""
        return self._stream.ids

    @property
    def result(self) -> Generated:
        """What was generated so far. Raises InputError before the first piece."""
        if self._prompt_cost is None:
            raise InputError("nothing was generated yet; take a piece first")
        breaches = tuple(self._breaches)
        notes = *self._notes, *([note(None, breaches)] if breaches else [])
        return Generated(self.text, self.tokens, tuple(self._logprobs), self._stream.end or End.CLOSED,
                         self._rendered.ids, self._prompt_cost, tuple(self._steps), breaches, notes)

    def run(self) -> Generated:
        """All of it."""
        for _ in self:
            pass
        return self.result

    def close(self) -> None:
        """Ends the generation here. Closing twice is allowed."""
        self._stream.finish(End.CLOSED)
        self.leaving.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


class Generates(ABC):
    """A model that generates text: what users call. `decoding` gives it a text that grows."""

    tokenizer: Tokenizer
    guard: str

    @abstractmethod
    def decoding(self) -> Decoding:
        """A text that grows, empty but for a public prefix. Raises ModelError where the model does not tell the next
        token."""

    @abstractmethod
    def _noted(self) -> list[str]:
        """What the user should know about the model as it was loaded."""

    @overload
    def generate(self, prompt: Prompt, *, stream: Literal[False] = False, draft: Draft = "auto",
                 text: Decoding | None = None, progress: bool | Progress = False,
                 **sampling: Unpack[Options]) -> Generated: ...
    @overload
    def generate(self, prompt: Prompt, *, stream: Literal[True], draft: Draft = "auto", text: Decoding | None = None,
                 progress: bool | Progress = False, **sampling: Unpack[Options]) -> Generation: ...
    @overload
    def generate(self, prompt: Prompt, *, stream: bool, draft: Draft = "auto", text: Decoding | None = None,
                 progress: bool | Progress = False, **sampling: Unpack[Options]) -> Generated | Generation: ...
    def generate(self, prompt: Prompt, *, stream: bool = False, draft: Draft = "auto", text: Decoding | None = None,
                 progress: bool | Progress = False, **sampling: Unpack[Options]) -> Generated | Generation:
        """Continues a text, or answers messages.

        prompt    a text; messages, each with a `role` and a `content`, by the tokenizer's chat template; or a dict of
                  token ids. It begins with the model's public prefix, if there is one
        stream    False: `Generated`; True: a `Generation`, an iterator of pieces of text
        draft     "auto": where decoding is greedy, tokens are guessed from the text so far and verified, several in one
                  step; the folder of a small model with the same vocabulary, which guesses in plaintext here, or a
                  `DraftModel` that has it open, or another `Drafter`; None: one token in each step. The tokens are the
                  same
        text      a text of this model that was generated in before: only what the prompt does not have in common with
                  it is computed; it stays open. None: a new one, which ends with the generation
        progress  while the prompt runs: True for a bar on stderr, or a callback (what, done, total)
        sampling  fields of `Sampling`: max_new_tokens, temperature, top_k, top_p, repetition_penalty, stop, seed

        Raises InputError for a prompt that the model cannot take, SettingsError, ModelError, and with the guard "raise"
        Untrusted. Prompt and settings are checked before anything of the prompt is shared.
        """
        chosen = sampling_of(sampling)
        rendered = render(self.tokenizer, prompt, chosen.max_new_tokens)
        drafter = drafter_of(draft, self.tokenizer)
        notes = [*self._noted(), *advice(drafter, rendered.ids, chosen)]
        with ExitStack() as opened:
            decoding = text
            if decoding is None:
                decoding = self.decoding()
                opened.callback(decoding.close)
            decoding.require(rendered.ids)
            running = Generation(decoding, rendered, self.tokenizer, chosen, drafter, self.guard, notes, progress)
            running.leaving = opened.pop_all()
        return running if stream else running.run()

    @overload
    def score(self, texts: str) -> Scored: ...
    @overload
    def score(self, texts: list[str] | tuple[str, ...]) -> list[Scored]: ...
    def score(self, texts: str | list[str] | tuple[str, ...]) -> Scored | list[Scored]:
        """How likely texts are behind the model's public prefix, if there is one: a `Scored` for one text, a list for a
        list. A text that begins with the prefix is not put behind another.

        Raises InputError as a call of the model, and with the guard "raise" Untrusted.
        """
        rows = [row.ids.tolist() for row in self.tokenizer.rows(texts)]
        found = [self._scored(ids, None if isinstance(texts, str) else i) for i, ids in enumerate(rows)]
        return found[0] if isinstance(texts, str) else found

    def _scored(self, ids: list[int], number: int | None) -> Scored:
        decoding, steps, total = self.decoding(), list[Step](), 0.0
        try:
            if len(ids) > decoding.length and tuple(ids[: decoding.length]) == decoding.prefix:
                ids = ids[decoding.length :]
            for start in range(0, len(ids), decoding.at_once):
                part = ids[start : start + decoding.at_once]
                steps.append(decoding.take(part, last=len(part)))
                following = ids[start + 1 : start + 1 + len(part)]
                total += sum(float(log_softmax(row)[i]) for row, i in zip(steps[-1].logits, following, strict=False))
        finally:
            decoding.close()
        breaches = tuple(dict.fromkeys(breach for step in steps for breach in step.breaches))
        if breaches and self.guard == "raise":
            raise Untrusted(note(number, breaches))
        likely = float("nan") if breaches and self.guard == "nan" else total
        notes = *self._noted(), *([note(number, breaches)] if breaches else [])
        return Scored(likely, len(ids) - 1, sum((step.cost for step in steps[1:]), steps[0].cost), breaches, notes)


def sampling_of(given: Mapping[str, Any]) -> Sampling:
    """`Sampling` from keyword arguments. Raises SettingsError for an unknown one, with the nearest known one."""
    require_known(given, Sampling, " of a generation")
    return Sampling(**given)
