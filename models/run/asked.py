"""A model that remembers what it was asked last: for callers who need a task's results and the whole output."""

from __future__ import annotations

from collections.abc import Callable

from secformer.models.data.tokenizer import Reading, Texts, Tokenizer
from secformer.models.families.architecture import Architecture
from secformer.models.run.helpers import Helpers
from secformer.models.run.output import SecureOutput
from secformer.models.run.progress import Progress
from secformer.mpc.errors import InputError


class Asked(Helpers):
    """A model of which the caller needs the whole output, beside the results of a task: its cost and its notes.

    `call` is made when a task runs, so heads and texts that do not fit are refused before that.
    """

    def __init__(self, architecture: Architecture, tokenizer: Tokenizer, guard: str, truncation: bool,
                 call: Callable[[Texts, bool | Progress], SecureOutput]):
        self.architecture, self.tokenizer, self.guard = architecture, tokenizer, guard
        self._truncation, self._call = truncation, call
        self._output: SecureOutput | None = None

    @property
    def output(self) -> SecureOutput:
        """The output of the last call."""
        if self._output is None:
            raise InputError("this model was not asked anything; call one of its tasks first")
        return self._output

    def __call__(self, texts: Texts, progress: bool | Progress = False) -> SecureOutput:
        self._output = self._call(texts, progress)
        return self._output

    def _read(self, texts: Texts) -> Reading:
        return self.tokenizer.read(texts, truncation=self._truncation)
