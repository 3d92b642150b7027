"""A client of served parties: tokenises and shares texts, sends one half to each party, joins the halves of answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from secformer.models.data.batch import Batch, Steps
from secformer.models.data.tokenizer import Reading, Texts, Tokenizer
from secformer.models.families.program import GUARD
from secformer.models.run.decoding import Decoding, decoder_of
from secformer.models.run.gather import gather
from secformer.models.run.generate import Generates
from secformer.models.run.guard import named
from secformer.models.run.helpers import Helpers
from secformer.models.run.options import GUARDS
from secformer.models.run.output import SecureOutput, assemble
from secformer.models.run.progress import Progress, shown
from secformer.models.run.public import PublicModel
from secformer.models.run.tables import Tables
from secformer.models.run.tasks import advice, answers
from secformer.models.run.turns import Turns
from secformer.mpc.errors import ModelError, ProtocolError, SecformerError, SettingsError
from secformer.mpc.meter import Cost
from secformer.mpc.net.credentials import Credentials
from secformer.roles.asking import BothParties, Busy
from secformer.roles.decoding import Attempt, RemoteDecoding
from secformer.roles.halves import fresh_id, halves_of, joined
from secformer.roles.kept_receipts import Receipts
from secformer.roles.messages import StepRequest
from secformer.roles.settings import ClientSettings, load_client
from secformer.roles.traces import trace_in

SOURCE = "the provisioned model's own"


def connect(settings: str | Path | ClientSettings, *, guard: str = "mark",
            receipts: str | Path | None = None, traceparent: str | None = None) -> RemoteModel:
    """A served model, from a client's settings file. Nothing is sent before the first request.

    guard        what is done about texts that cannot be trusted: "mark", "nan" or "raise", as in `Settings`. Whether
                 values are checked at all was decided when the model was provisioned.
    receipts     a file to which both parties' signed receipts of every answer are added, one JSON line for each; then
                 an answer without receipts is refused
    traceparent  W3C's header of the trace that all requests belong to; by default, each call is a trace of its own

    Raises SettingsError, ModelError.
    """
    return RemoteModel(settings if isinstance(settings, ClientSettings) else load_client(settings), guard=guard,
                       receipts=receipts, traceparent=traceparent)


class RemoteModel(Helpers, Generates):
    """A model that two served parties hold. Use it as a context manager, or call `close`.

    A call sends up to `in_flight` requests at the same time. Several threads may call it: their calls are made one
    after the other. `close` abandons running requests.
    """

    def __init__(self, settings: ClientSettings, *, guard: str = "mark", receipts: str | Path | None = None,
                 traceparent: str | None = None):
        if guard not in GUARDS or guard == "off":
            raise SettingsError(f"a client's guard must be 'mark', 'nan' or 'raise', got {guard!r}; `secformer "
                                f"provision --no-guard` makes a model without one")
        self._settings, self.guard = settings, guard
        self._trace = "" if traceparent is None else trace_in([traceparent])
        if traceparent is not None and not self._trace:
            raise SettingsError(f"a traceparent is 00-TRACE-PARENT-FLAGS, in 2, 32, 16 and 2 lower-case hexadecimal "
                                f"digits; got {traceparent[:80]!r}")
        self.public = PublicModel.load(settings.model)
        self.architecture = self.public.architecture
        if guard != "mark" and GUARD not in self.public.names:
            raise SettingsError(f"guard={guard!r} needs a guard, but this model was provisioned with --no-guard, so "
                                f"nothing is checked; leave the guard at 'mark', or ask the model's owner for another")
        self._tables = None if self.public.private else Tables(settings.model, self.public)
        self.tokenizer = Tokenizer(settings.model, self.public.inputs)
        credentials = Credentials(settings.tls)
        context = credentials.client()
        self._receipts = Receipts(settings.tls, credentials.objection, None if receipts is None else Path(receipts))
        self._ways = [BothParties((settings.party0, settings.party1), context, settings.deadline)
                      for _ in range(settings.in_flight)]
        self._sessions: set[str] = set()
        self._compared = self._closed = False
        self._turns = Turns()

    def infer(self, texts: Texts, progress: bool | Progress = False) -> SecureOutput:
        """Answers in the order of the texts, as `secure_model` returns them.

        Raises InputError for texts that the model cannot take, before anything is sent. Raises ProtocolError if a party
        fails or does not answer within the deadline, and SettingsError for a closed model.
        """
        architecture = self.architecture
        with self._turns.take(), shown(progress) as tell:
            read, tell, trace = self._read(texts), self._turns.telling(tell), self._trace or fresh_id()
            for way in self._ways:
                way.resume()
            self._compare()
            asks = [partial(self._ask, way, trace) for way in self._ways]
            results, cost = gather(read.rows, self._settings.batch_tokens, architecture.results, asks, tell,
                                   self._hang_up, self._steps())
            return assemble(architecture, read.rows, results, cost=cost, profile_source=SOURCE, guard=self.guard,
                            notes=[*self.public.notes, *self._filling(), *advice(architecture, read)],
                            answers=answers(architecture, read, results, self.tokenizer))

    def __call__(self, texts: Texts, progress: bool | Progress = False) -> SecureOutput:
        """The same as `infer`."""
        return self.infer(texts, progress)

    def _read(self, texts: Texts) -> Reading:
        return self.tokenizer.read(texts, truncation=self._settings.truncation)

    def _steps(self) -> Steps | None:
        """Lengths that texts are filled up to."""
        fill = self._settings.pad_to > 1 and self.architecture.fillable
        return Steps(self._settings.pad_to, self.public.inputs.longest) if fill else None

    def _filling(self) -> list[str]:
        """What a user who fills texts up must know."""
        to = self._settings.pad_to
        if to > 1 and not self.architecture.fillable:
            return [f"pad_to = {to} does nothing: texts of this model keep their lengths"]
        if to > 1 and GUARD in self.public.names:
            return [f"pad_to = {to}: the parties do not know which tokens are fillers, so the guard may mark a text "
                    f"for a filler's values; set pad_to = 1 where marks matter"]
        return []

    def _ask(self, way: BothParties, trace: str, batch: Batch, tell: Progress) -> tuple[dict[str, np.ndarray], Cost]:
        """One request: a half to each party, at the same time. Party 1's half is a seed."""
        tell("asking the parties", 0, 1)
        found, cost = way.patiently(lambda: self._answered(way, batch, self.public.names, fresh_id(), trace),
                                    self._settings.deadline)
        tell("asking the parties", 1, 1)
        return named(found), cost

    def _answered(self, way: BothParties, batch: Batch, names: Sequence[str],
                  request: str, trace: str, step: StepRequest | None = None) -> tuple[dict[str, np.ndarray], Cost]:
        """The values of the results of these names, and what they cost. Raises as `ask`, and AuthError for receipts
        that do not hold."""
        halves = halves_of(self.public, self._tables, batch, request, step, trace)
        answers = way.ask(lambda party, rank: party.infer(halves[rank]))
        self._receipts.take(halves, answers, self.public.digest)
        cost = answers[0].cost.merged(answers[1].cost, parallel=True)
        return joined(answers, names, self.public.fixed.frac), cost

    def decoding(self) -> Decoding:
        """A text that grows at the parties, empty but for a public prefix. Nothing is sent before its first tokens.

        Raises ModelError where the model does not tell the next token.
        """
        decoder = decoder_of(self.architecture)
        if not self.public.steps:
            raise ModelError("this model was provisioned by a version that did not generate text; ask its owner to "
                             "provision it again")
        return RemoteDecoding(decoder, partial(self._step, self._trace or fresh_id()), self._end)

    def _step(self, trace: str, batch: Batch, attempt: Attempt) -> tuple[dict[str, np.ndarray], Cost]:
        way = self._ways[0]

        def asked() -> tuple[dict[str, np.ndarray], Cost]:
            request, step = attempt()
            self._sessions.add(step.session)
            try:
                return self._answered(way, batch, self.public.step_names, request, trace, step)
            except Busy:
                if request == step.session:  # it was not opened
                    self._sessions.remove(step.session)
                raise

        with self._turns.take():
            way.resume()
            self._compare()
            return way.patiently(asked, self._settings.deadline)

    def _end(self, session: str) -> None:
        """Ends a session at the parties that can be reached. They end it by themselves after a while."""
        with self._turns.take():
            if session not in self._sessions:
                return
            self._sessions.remove(session)
            self._ways[0].resume()
            with suppress(SecformerError):
                self._ways[0].ask(lambda party, rank: party.end(session))

    def _noted(self) -> list[str]:
        return list(self.public.notes)

    def _compare(self) -> None:
        """Checks once that both parties hold the model that this client knows."""
        if self._closed:
            raise SettingsError("this RemoteModel is closed; open it again with connect")
        if self._compared:
            return
        for rank, digest in enumerate(self._ways[0].ask(lambda party, rank: party.model())):
            if digest != self.public.digest:
                raise ProtocolError(f"party {rank} holds model {digest}, but this client knows {self.public.digest}; "
                                    f"use the clients' folder of the same provisioning")
        self._compared = True

    def _hang_up(self) -> None:
        for way in self._ways:
            way.hang_up()

    def close(self) -> None:
        """Hangs up; a request that another thread makes ends with a ProtocolError. Sessions end. Closing twice is
        allowed."""
        self._closed = True
        self._hang_up()
        for session in tuple(self._sessions):
            self._end(session)
        for way in self._ways:
            way.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
