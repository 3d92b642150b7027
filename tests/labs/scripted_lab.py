"""A decoder whose next token follows from the last one, without any model: what is said of tokens can be foreseen."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from text_lab import WORDS, byte_tokenizer

from secformer.models.data.batch import Batch
from secformer.models.run.decoding import Decoding, Step, Turn
from secformer.models.run.generate import Generates
from secformer.mpc.meter import Cost

LIKELY = 3.0  # the logit of the token that follows; all others are 0


class ScriptedText(Decoding):
    """Keeps the tokens of its steps. The step with which it is `interrupted_at` so many tokens raises
    KeyboardInterrupt."""

    def __init__(self, model: Scripted):
        super().__init__(SimpleNamespace(spec=SimpleNamespace(prefix=model.prefix, longest=model.longest)))  # type: ignore
        self.model, self.steps = model, list[list[int]]()

    def _ask(self, batch: Batch, turn: Turn) -> Step:
        ids = batch.rows[0].ids.tolist()
        self.steps.append(ids)
        self.tell("a step", len(self.steps), 9)
        if self.length == self.model.interrupted_at:
            raise KeyboardInterrupt
        logits = np.zeros((turn.last, WORDS))
        for row, i in zip(logits, ids[len(ids) - turn.last :], strict=True):
            row[self.model.following(i)] = LIKELY
        breaches = ("layer.0.mlp",) if self.length in self.model.breached_at else ()
        return Step(logits, breaches, Cost(seconds=0.25, rounds=7, bytes=100 * len(ids)))


class Scripted(Generates):
    """Generates the cycle of the bytes of `cycle`, from whatever token on."""

    def __init__(self, folder: Path, cycle: str = "abc", *, prefix: tuple[int, ...] = (), guard: str = "mark",
                 longest: int = 64, breached_at: tuple[int, ...] = (), interrupted_at: int = -1):
        (folder / "config.json").write_text('{"model_type": "gpt2", "eos_token_id": 0}', "utf-8")
        self.tokenizer, self.guard, self.prefix, self.longest = byte_tokenizer(folder, longest), guard, prefix, longest
        self.breached_at, self.interrupted_at = breached_at, interrupted_at
        self._cycle = [self.tokenizer.tokens(letter)[0] for letter in cycle]
        self.texts: list[ScriptedText] = []

    def following(self, token: int) -> int:
        place = self._cycle.index(token) if token in self._cycle else -1
        return self._cycle[(place + 1) % len(self._cycle)]

    def decoding(self) -> Any:
        self.texts.append(ScriptedText(self))
        return self.texts[-1]

    def _noted(self) -> list[str]:
        return ["scripted"]
