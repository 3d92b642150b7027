"""One request's way to a model: the tasks of `Helpers`, asked at a desk together with other requests."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import CancelledError

from secformer.gateway.desk import Desk, Job
from secformer.gateway.refusals import Gone
from secformer.gateway.token_ids import require_own
from secformer.models.data.tokenizer import Reading, Texts
from secformer.models.run.guard import refuse
from secformer.models.run.helpers import Helpers
from secformer.models.run.output import SecureOutput
from secformer.models.run.progress import Progress


class Visit(Helpers):
    """For one request. `leave`, from another thread, ends its waiting.

    tokens  how many its texts have had so far
    """

    guard = "raise"

    def __init__(self, desk: Desk):
        self._desk, self.architecture, self.tokenizer = desk, desk.architecture, desk.tokenizer
        self.tokens = 0
        self._left = False
        self._job: Job | None = None

    def __call__(self, texts: Texts, progress: bool | Progress = False) -> SecureOutput:
        """The answer. Raises as `RemoteModel`; Gone after `leave`; and Untrusted for a text that the guard
        has marked."""
        read = self._read(texts)
        self.tokens += sum(map(len, read.rows))
        self._job = self._desk.submit(read)
        if self._left:
            self._job.answer.cancel()
        try:
            out = self._job.answer.result()
        except CancelledError:
            raise Gone from None
        refuse(out.breaches)
        return out

    def _read(self, texts: Texts) -> Reading:
        if self._left:
            raise Gone
        with self._desk.reading:
            if isinstance(texts, Mapping):
                require_own(self.tokenizer, texts["input_ids"])
            return self.tokenizer.read(texts, truncation=self._desk.cells[0].truncation)

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        self._left = True
        if self._job is not None:
            self._job.answer.cancel()
