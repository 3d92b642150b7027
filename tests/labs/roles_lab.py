"""What the tests of served roles share: questions, what must come back, and what lies on disk."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from secformer import connect, demo_model, plain_bert
from secformer.models.data.inputs import RowKeys, TokenInputs
from secformer.models.run.output import SecureOutput
from secformer.mpc.kernels.points import LEAF, SALT_WORDS, SEED_WORDS, PointKeys, depth
from secformer.roles.trial import LocalRoles

TEXT = "A wonderful film."
LONG = ["the plot " * 30, "a dull and lifeless mess of a film " * 10, "warm and funny " * 25] * 2
TOLERANCE = 0.01


def ask(roles: LocalRoles, texts: Any = TEXT) -> SecureOutput:
    with connect(roles.settings("client")) as model:
        return model.infer(texts)


def right(out: SecureOutput, texts: Any = TEXT) -> None:
    """The answer is the plaintext model's."""
    wanted = _wanted(json.dumps(texts))
    assert out.labels == wanted.labels
    assert out.logits is not None and wanted.logits is not None
    assert np.abs(out.logits - wanted.logits).max() < TOLERANCE


@cache
def _wanted(texts: str) -> SecureOutput:
    return plain_bert(demo_model(), json.loads(texts))


def serials(roles: LocalRoles, role: str) -> list[str]:
    """The journal of used serials: "epoch space serial" lines."""
    path = roles.role_folder(role) / "state" / "serials.log"
    return path.read_text().splitlines() if path.is_file() else []


def no_serial_twice(roles: LocalRoles) -> None:
    for role in ("dealer", "party0", "party1"):
        twice = [line for line, count in Counter(serials(roles, role)).items() if count > 1]
        assert not twice, f"{role} used {twice} more than once"


def blank_keys(inputs: TokenInputs, tokens: int) -> RowKeys:
    """Keys of the right form, whose rows are not one-hot."""
    levels = depth(inputs.words)
    points = PointKeys(0, np.zeros(SALT_WORDS, np.uint32), np.zeros((tokens, SEED_WORDS), np.uint32),
                       np.zeros((tokens, levels, SEED_WORDS), np.uint32), np.zeros((tokens, levels), np.uint8),
                       np.zeros((tokens, LEAF), np.uint64))
    return RowKeys(points, np.zeros((tokens, inputs.segments), np.uint64))


class Asking:
    """A question in a thread of its own."""

    def __init__(self, roles: LocalRoles, texts: Any, settings: Path | None = None):
        self.output: SecureOutput | None = None
        self.error: BaseException | None = None
        self.seconds = 0.0
        self._settings, self._texts = settings or roles.settings("client"), texts
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        started = time.monotonic()
        try:
            with connect(self._settings) as model:
                self.output = model.infer(self._texts)
        except BaseException as error:
            self.error = error
        self.seconds = time.monotonic() - started

    def end(self, seconds: float = 90.0) -> None:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the client hangs"


class Steady:
    """A client that asks one question after the other. Leaving the context: every one was answered rightly."""

    def __init__(self, up: LocalRoles, client: str = "alice"):
        self._up, self._client, self._stop = up, client, threading.Event()
        self.answered, self.errors = 0, list[Exception]()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        with connect(self._up.settings(self._client)) as model:
            while not self._stop.is_set():
                try:
                    right(model.infer(TEXT))
                    self.answered += 1
                except Exception as error:
                    self.errors.append(error)
                    return

    def more(self, count: int = 2) -> None:
        """Waits until some more questions were answered."""
        goal = self.answered + count
        until(lambda: self.answered >= goal or bool(self.errors), 90)
        assert not self.errors, self.errors

    def __enter__(self) -> Steady:
        self._thread.start()
        self.more(1)
        return self

    def __exit__(self, *args: Any) -> None:
        self._stop.set()
        self._thread.join(90)
        assert not self._thread.is_alive() and not self.errors, self.errors


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "what the test waits for does not come"
        time.sleep(0.01)


def in_the_middle(roles: LocalRoles) -> Asking:
    """A long question whose computation has begun: both parties have burnt its serial."""
    before = len(serials(roles, "party0"))
    asking = Asking(roles, LONG)
    until(lambda: len(serials(roles, "party0")) > before or asking.error is not None)
    assert asking.error is None, asking.error
    return asking


def log_lines(roles: LocalRoles, role: str) -> list[dict[str, Any]]:
    """What a role has logged so far; every whole line must be JSON."""
    return [json.loads(line) for line in roles.log(role).read_text().splitlines(keepends=True) if line.endswith("\n")]


def logged(roles: LocalRoles, role: str, holds: Callable[[dict[str, Any]], bool]) -> None:
    """Waits for such a line: a role may hang up, or answer, before it has written why."""
    until(lambda: any(map(holds, log_lines(roles, role))))
