"""A text that grows at two served parties, as its client sees it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from secformer.models.data.batch import Batch
from secformer.models.families.decoder import Decoder
from secformer.models.run.decoding import Decoding, Step, Turn
from secformer.models.run.local_decoding import step_of
from secformer.mpc.meter import Cost
from secformer.roles.halves import fresh_id
from secformer.roles.messages import StepRequest

Asked = tuple[dict[str, np.ndarray], Cost]
Attempt = Callable[[], tuple[str, StepRequest]]


class RemoteDecoding(Decoding):
    """A session at both parties (see `sessions`), from its first step on.

    ask   sends new tokens as a step of a session. It gets what names each attempt: a request's id, and the step. The id
          of the first step is the session's
    end   ends a session, as far as the parties can be reached
    """

    def __init__(self, decoder: Decoder, ask: Callable[[Batch, Attempt], Asked], end: Callable[[str], None]):
        super().__init__(decoder)
        self.name, self._ask_parties, self._end, self._begun = "", ask, end, False

    def _ask(self, batch: Batch, turn: Turn) -> Step:
        keep, first, self._begun = self.length - len(turn.positions), not self._begun, True

        def attempt() -> tuple[str, StepRequest]:
            request = fresh_id()
            if first:
                self.name = request
            return request, StepRequest(self.name, keep, turn.last)

        try:
            found, cost = self._ask_parties(batch, attempt)
        except BaseException:
            self.close()
            raise
        return step_of(found, (), cost)

    def close(self) -> None:
        """Ends the session at both parties. What they keep of it is gone then."""
        super().close()
        if self._begun:
            self._begun = False
            self._end(self.name)
