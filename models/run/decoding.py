"""A text inside a decoder, token by token: its keys and values stay with the parties, and logits go to the client.

n new tokens, V words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from secformer.models.data.batch import Batch, Row
from secformer.models.families.architecture import Architecture
from secformer.models.families.blocks import Forward
from secformer.models.families.caching import Cached, Pair, Timeline
from secformer.models.families.decoder import Decoder
from secformer.models.families.heads import Head
from secformer.models.families.program import Answer
from secformer.models.run.progress import Progress, silent
from secformer.mpc.errors import InputError, ModelError, ProtocolError
from secformer.mpc.meter import Cost
from secformer.mpc.session import Session
from secformer.mpc.shares import Share

LOGITS = "logits"
AT_ONCE = 128  # tokens of a prompt that run together: bounds memory


@dataclass(frozen=True)
class Step:
    """What a client gets of a step.

    logits    (m, V): of the last m tokens that were given
    breaches  where values left their ranges; nothing, where they can be trusted
    """

    logits: np.ndarray = field(repr=False)
    breaches: tuple[str, ...]
    cost: Cost


class Decoding(ABC):
    """A text that grows. It is public how many tokens it has, and how many come with each step.

    tell  is told of a step's progress
    """

    at_once = AT_ONCE

    def __init__(self, decoder: Decoder):
        self.decoder, self.prefix = decoder, decoder.spec.prefix
        self.timeline = Timeline(len(self.prefix))
        self._ids = list(self.prefix)
        self._ended = ""  # why there are no more steps
        self.tell: Progress = silent

    @property
    def length(self) -> int:
        """Tokens so far, with those of the public prefix."""
        return self.timeline.length

    def become(self, ids: Sequence[int]) -> Step:
        """Makes the text be these tokens, of which it keeps those that it begins with. Returns the logits behind the
        last one. Raises InputError as `require` and `take`."""
        self.require(ids)
        same = next((i for i, (a, b) in enumerate(zip(self._ids, ids, strict=False)) if a != b), len(self._ids))
        self.back(min(same, len(ids) - 1))
        return self.take(ids[self.length :])

    def require(self, ids: Sequence[int]) -> None:
        """Raises InputError for tokens that do not begin with the public prefix, or end within it."""
        if tuple(ids[: len(self.prefix)]) != self.prefix or len(ids) <= len(self.prefix):
            raise InputError(f"the prompt does not begin with the model's public prefix of {len(self.prefix)} tokens, "
                             f"so its first tokens would be secret, and at the first token of a text, values are often "
                             f"larger than words hold. Give messages, if the model has a chat template. Or load the "
                             f"model with another public_prefix: the beginning of your prompts, or None for none")

    def take(self, ids: Sequence[int], last: int = 1) -> Step:
        """Appends tokens. Returns the logits behind each of the last `last` ones of them.

        Raises InputError for no tokens, or more than the model's context holds.
        """
        if not 1 <= last <= len(ids):
            raise InputError(f"a step takes at least one token, and as many as logits are asked for; got {len(ids)} "
                             f"for {last}")
        if self.length + len(ids) > self.decoder.spec.longest:
            raise InputError(f"the text has {self.length} tokens and {len(ids)} come; this model's context holds "
                             f"{self.decoder.spec.longest}")
        early = (len(ids) - 1) // AT_ONCE * AT_ONCE if last == 1 else len(ids) - last  # a guard checks one row, or all
        steps = [self._step(ids[start : min(early, start + AT_ONCE)], 1) for start in range(0, early, AT_ONCE)]
        steps.append(self._step(ids[early:], last))
        breaches = dict.fromkeys(breach for step in steps for breach in step.breaches)
        return Step(steps[-1].logits, tuple(breaches), sum((step.cost for step in steps[1:]), steps[0].cost))

    def back(self, length: int) -> None:
        """Forgets the tokens behind the first `length`. Raises InputError as `Timeline.back`."""
        self.timeline.back(length)
        del self._ids[length:]

    @property
    def ended(self) -> bool:
        """Whether it takes no more tokens: it was closed, or a step of it failed."""
        return self._ended != ""

    def _step(self, ids: Sequence[int], last: int) -> Step:
        if self._ended:
            raise ProtocolError(f"{self._ended}, so what its parties kept of it is lost; begin a new one")
        capacity = self.timeline.capacity(len(ids))
        positions = self.timeline.take(len(ids))
        self._ids += ids
        self._ended = "a step of this text failed"  # until it has come back
        step = self._ask(new_tokens(ids), Turn(self.decoder, self.timeline, positions, capacity, last))
        self._ended = ""
        return step

    def close(self) -> None:
        """Lets go of what the parties keep. Closing twice is allowed."""
        self._ended = self._ended or "this text was closed"

    @abstractmethod
    def _ask(self, batch: Batch, turn: Turn) -> Step:
        """Runs a step of these tokens."""


@dataclass(frozen=True, eq=False)
class Turn:
    """What is public of a step: the positions (n,) of its tokens, the slots of its caches, and how many logits it
    gives."""

    decoder: Decoder
    timeline: Timeline
    positions: np.ndarray = field(repr=False)
    capacity: int
    last: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """What a plan depends on: steps that have it in common have the same."""
        return len(self.positions), self.capacity, self.last

    def answer(self, pairs: Sequence[Pair]) -> Answer:
        """The step over caches, as `program.infer` takes it."""
        for cache in (cache for pair in pairs for cache in pair):
            cache.grow(self.capacity)
        seen = {reach: self.timeline.seen(self.positions, self.capacity, reach) for reach in self.decoder.reaches}
        attention = Cached(self.positions, pairs, seen.__getitem__)

        def answer(s: Session, x: Share, f: Forward) -> dict[str, Share]:
            x = self.decoder.hidden(s, x, f, attention)
            return {LOGITS: self.decoder.logits(s, x[len(self.positions) - self.last :], f)}

        return answer


def new_tokens(ids: Sequence[int]) -> Batch:
    """Tokens of one text, all of them attended to."""
    row = np.asarray(ids, np.int64)
    return Batch((Row(row, np.zeros_like(row), np.ones_like(row)),))


def decoder_of(architecture: Architecture) -> Decoder:
    """The architecture as one that tells the next token. Raises ModelError where it does not."""
    if not isinstance(architecture, Decoder) or architecture.head is not Head.CAUSAL:
        raise ModelError(f"{architecture.spec.architecture} does not tell the next token, so it generates no text; "
                         f"give a causal language model, such as a LlamaForCausalLM")
    return architecture
