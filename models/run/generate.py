"""Text from a decoder: prompts in, pieces of text out, with what each token cost.

The choice of tokens is the client's own arithmetic (`models/generation`). Parties see how many tokens a step has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from secformer.models.data.tokenizer import Tokenizer
from secformer.models.generation.drafting import Drafter, LookUp, accepted
from secformer.models.generation.prompts import Prompt, Rendered, render
from secformer.models.generation.sampling import Chooser, Sampling, log_softmax
from secformer.models.generation.stops import End, TextStream, end_tokens
from secformer.models.run.decoding import Decoding
from secformer.models.run.drafts import Drafts
from secformer.models.run.guard import note
from secformer.mpc.errors import InputError, SettingsError, Untrusted
from secformer.mpc.meter import Cost

ONE_BY_ONE = "off"


@dataclass(frozen=True)
class TokenCost:
    """What a step cost, and how many tokens it gave: more than one, where drafted tokens were right."""

    tokens: int
    cost: Cost


@dataclass(frozen=True)
class Generated:
    """A finished generation. `repr` shows no text.

    text          what was generated, up to where it ended
    tokens        ids, the token that ended it included
    logprobs      the logarithm of each token's probability, by the model's own logits
    end           why it ended
    prompt        the prompt's ids
    prompt_cost   what the prompt cost
    steps         what the steps behind it cost
    breaches      where values left the ranges that the model was measured for; nothing, where it can be trusted
    """

    text: str = field(repr=False)
    tokens: tuple[int, ...] = field(repr=False)
    logprobs: tuple[float, ...] = field(repr=False)
    end: End
    prompt: tuple[int, ...] = field(repr=False)
    prompt_cost: Cost
    steps: tuple[TokenCost, ...]
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
    def token_cost(self) -> Cost | None:
        """Of all steps behind the prompt; divide by the tokens that they gave. None where there was no step."""
        costs = [step.cost for step in self.steps]
        return sum(costs[1:], costs[0]) if costs else None


@dataclass(frozen=True)
class Scored:
    """How likely a text is, token by token. The first token behind the public prefix has no prediction, and does not
    count.

    log_likelihood  the sum of the logarithms of the tokens' probabilities
    tokens          how many count
    """

    log_likelihood: float
    tokens: int
    breaches: tuple[str, ...] = ()

    @property
    def perplexity(self) -> float:
        """e to the mean negative log-likelihood; NaN where no token counts."""
        return float(np.exp(-self.log_likelihood / self.tokens)) if self.tokens else float("nan")


class Generation(Iterator[str]):
    """A generation that runs: an iterator of pieces of text, which ends when the text does.

    `result` is complete then. Closing it earlier ends it: what was generated stays.
    """

    def __init__(self, decoding: Decoding, rendered: Rendered, tokenizer: Tokenizer, sampling: Sampling,
                 drafter: Drafter | None, guard: str, notes: Sequence[str] = (), owner: bool = False):
        self._decoding, self._rendered, self._sampling, self._guard = decoding, rendered, sampling, guard
        self._chooser, self._drafts = Chooser(sampling), Drafts(drafter if not sampling.do_sample else None)
        self._stream = TextStream(tokenizer, rendered.ids, stop=sampling.stops, ends=end_tokens(tokenizer.folder))
        self._notes, self._owner = list(notes), owner
        self._logprobs: list[float] = []
        self._steps: list[TokenCost] = []
        self._breaches: dict[str, None] = {}
        self._prompt_cost: Cost | None = None

    def __next__(self) -> str:
        """The next piece, which may be empty: a step may complete no character, or begin what may be a stop text."""
        if self._stream.end is not None:
            raise StopIteration
        try:
            piece = self._advanced()
        except BaseException:
            self.close()
            raise
        if self._stream.end is not None:
            self.close()
        return piece

    def _advanced(self) -> str:
        known = [*self._rendered.ids, *self._stream.ids]
        room = self._sampling.max_new_tokens - len(self._stream.ids)
        drafted = self._drafts.draft(known, room - 1) if self._prompt_cost is not None else []
        if self._prompt_cost is None:
            step = self._decoding.become(known)
            self._prompt_cost = step.cost
        else:
            step = self._decoding.take([known[-1], *drafted], last=1 + len(drafted))
        self._trust(step.breaches)
        choices = accepted(self._chooser, step.logits, known, drafted)
        self._drafts.learn(drafted, len(choices) - 1)
        if len(choices) <= len(drafted):
            self._decoding.back(self._decoding.length - (len(drafted) + 1 - len(choices)))
        pieces = []
        for choice in choices:
            if self._stream.end is None:
                self._logprobs.append(choice.logprob)
                pieces.append(self._stream.take(choice.token))
        if len(known) > len(self._rendered.ids):
            self._steps.append(TokenCost(len(pieces), step.cost))
        if self._stream.end is None and len(self._stream.ids) >= self._sampling.max_new_tokens:
            pieces.append(self._stream.finish())
        return "".join(pieces)

    def _trust(self, breaches: Sequence[str]) -> None:
        new = [each for each in breaches if each not in self._breaches]
        self._breaches |= dict.fromkeys(new)
        if breaches and self._guard == "raise":
            raise Untrusted(note(0, tuple(breaches)))

    def close(self) -> None:
        """Ends the generation here, and its text, unless that was given by the caller."""
        self._stream.finish()
        if self._owner:
            self._decoding.close()

    @property
    def result(self) -> Generated:
        """What was generated so far. Raises InputError before the first piece."""
        if self._prompt_cost is None:
            raise InputError("nothing was generated yet; take a piece first")
        breaches = tuple(self._breaches)
        notes = [*self._notes, *([note(0, breaches)] if breaches else [])]
        return Generated(self._stream.text, self._stream.ids, tuple(self._logprobs), self._stream.end or End.LENGTH,
                         self._rendered.ids, self._prompt_cost, tuple(self._steps), breaches, tuple(notes))

    def run(self) -> Generated:
        """All of it."""
        for _ in self:
            pass
        return self.result


class Generates(ABC):
    """A model that generates text: what users call. `decoding` gives it a text that grows."""

    tokenizer: Tokenizer
    guard: str

    @abstractmethod
    def decoding(self) -> Decoding: ...

    @abstractmethod
    def _noted(self) -> list[str]:
        """What the user should know about the model as it was loaded."""

    def generate(self, prompt: Prompt, *, stream: bool = False, draft: Drafter | str | None = "auto",
                 text: Decoding | None = None, **sampling: Any) -> Any:
        """Continues a text, or answers messages.

        prompt    a text; messages, each with a `role` and a `content`, by the tokenizer's chat template; or a dict of
                  token ids
        stream    False: `Generated`; True: a `Generation`, an iterator of pieces of text
        draft     "auto": where decoding is greedy, tokens are guessed from the text so far and verified, several in one
                  step; a `Drafter` guesses instead; None: one token in each step. The tokens are the same
        text      a text of this model that was generated in before: what it has in common with the prompt is kept
        sampling  fields of `Sampling`, such as max_new_tokens, temperature, top_k, top_p, stop, seed

        Raises InputError for a prompt that the model cannot take, SettingsError, ModelError, and with the guard "raise"
        Untrusted. All of this is checked before anything is shared.
        """
        chosen = sampling_of(sampling)
        rendered = render(self.tokenizer, prompt, chosen.max_new_tokens)
        drafter = LookUp() if draft == "auto" else draft
        if isinstance(drafter, str):
            raise SettingsError(f"draft must be 'auto', None or a Drafter, got {draft!r}")
        decoding = text or self.decoding()
        decoding.require(rendered.ids)
        running = Generation(decoding, rendered, self.tokenizer, chosen, drafter, self.guard, self._noted(),
                             owner=text is None)
        return running if stream else running.run()

    def score(self, texts: str | Sequence[str]) -> Any:
        """How likely texts are behind the public prefix: a `Scored` for one text, a list for a list.

        Raises InputError as a call of the model.
        """
        rows = self.tokenizer.rows(texts)
        found = [self._scored(row.ids.tolist()) for row in rows]
        return found[0] if isinstance(texts, str) else found

    def _scored(self, ids: list[int]) -> Scored:
        decoding = self.decoding()
        try:
            return self._scored_in(decoding, ids)
        finally:
            decoding.close()

    def _scored_in(self, decoding: Decoding, ids: list[int]) -> Scored:
        if tuple(ids[: decoding.length]) == decoding.prefix:
            ids = ids[decoding.length :]
        total, breaches = 0.0, dict[str, None]()
        for start in range(0, len(ids), decoding.at_once):
            part = ids[start : start + decoding.at_once]
            step = decoding.take(part, last=len(part))
            following = ids[start + 1 : start + 1 + len(part)]
            total += sum(float(log_softmax(row)[i]) for row, i in zip(step.logits, following, strict=False))
            breaches |= dict.fromkeys(step.breaches)
        if breaches and self.guard == "raise":
            raise Untrusted(note(0, tuple(breaches)))
        return Scored(total, max(0, len(ids) - 1), tuple(breaches))


def sampling_of(given: Mapping[str, Any]) -> Sampling:
    """`Sampling` from keyword arguments. Raises SettingsError for an unknown one."""
    known = {f.name for f in fields(Sampling)}
    if odd := sorted(set(given) - known):
        raise SettingsError(f"unknown setting {odd[0]!r} of a generation; the settings are {', '.join(sorted(known))}")
    return Sampling(**given)
