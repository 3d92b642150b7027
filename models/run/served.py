"""One party's side of a provisioned model: its plan for a request, and its half of the answer."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from secformer.models.data.batch import Batch
from secformer.models.data.inputs import Request
from secformer.models.data.parameters import Parameters, load_weights
from secformer.models.data.shares import GhostTensors, Tensors
from secformer.models.families.blocks import Forward
from secformer.models.families.program import Results, infer
from secformer.models.run.decoding import Turn, decoder_of
from secformer.models.run.public import PublicModel
from secformer.models.run.served_steps import PartyText, Shape, first_step, request_of, step
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.ops.book import Reader
from secformer.mpc.script import Script
from secformer.mpc.session import Session
from secformer.mpc.sessions.recorder import PlanRecorder
from secformer.mpc.sessions.secure import SecureSession

PLANS = 64  # the most plans that are kept, one per shape of request


class PartyModel:
    """What a party computes, without its connections. Any thread may ask for plans, one loads weights; every session
    may answer in a thread of its own.

    sessions  of one party, for requests that run at the same time: they share the opened weights
    traced    whether the scripts of requests are wanted, and not their plans alone
    """

    def __init__(self, public: PublicModel, *sessions: SecureSession, traced: bool = False):
        self.public, self._sessions, self._traced = public, sessions, traced
        self._recorder = PlanRecorder(public.fixed, chunk=sessions[0].party.chunk)
        self._scripts: OrderedDict[bytes, Script] = OrderedDict()
        self._steps: OrderedDict[Shape, Plan] = OrderedDict()
        self._planning = threading.Lock()
        self._parameters: dict[Session, Parameters] = {}

        def program(s: PlanRecorder) -> None:
            self._parameters[s] = load_weights(s, GhostTensors(public.layout))

        self.provisioning = self._recorder.record(program)

    def load_weights(self, shares: Tensors) -> None:
        """Opens the weights under their standing masks. The first session must be in a run of the plan `provisioning`,
        and no session may be answering."""
        first, *others = self._sessions
        first.forget_weights()
        opened = load_weights(first, shares)
        self._parameters[first] = opened
        for s in others:
            self._parameters[s] = opened.lent(s)

    def plan(self, batch: Batch) -> Plan:
        """The plan of one request, which follows from the request's public shape."""
        return self.script(batch).plan

    def script(self, batch: Batch) -> Script:
        """The script of one request, without a name where it is not traced."""
        key = batch.lengths.tobytes() + b":" + batch.mask.tobytes()
        with self._planning:
            if key not in self._scripts:
                self._scripts[key] = self._script(batch)
                if len(self._scripts) > PLANS:
                    self._scripts.popitem(last=False)
            self._scripts.move_to_end(key)
            return self._scripts[key]

    def _script(self, batch: Batch) -> Script:
        ghost = request_of(self.public, batch, None)

        def program(s: PlanRecorder) -> None:
            self._infer(s, ghost, batch)

        return self._recorder.script(program) if self._traced else Script(self._recorder.record(program))

    def answer(self, batch: Batch, words: np.ndarray, number: int = 0) -> Results:
        """This party's half of the answer, by result name. The session of that number must be in a run of the batch's
        plan."""
        return self._infer(self._sessions[number], request_of(self.public, batch, words), batch)

    # ---- texts that grow ------------------------------------------------------------------------------------------

    def text(self) -> PartyText:
        """A new text. Raises ModelError where the model does not tell the next token."""
        first = self._sessions[0]
        return PartyText(first, decoder_of(self.public.architecture), self._parameters[first])

    def step_plan(self, shape: Shape) -> Plan:
        """The plan of all steps of that shape. Raises InputError for more slots than texts may have."""
        book = self.public.step_series(shape[1])

        def program(s: PlanRecorder) -> None:
            with s.agreeing(Reader(book)):
                first_step(self.public, s, self._parameters[s], shape)

        with self._planning:
            if shape not in self._steps:
                self._steps[shape] = self._recorder.record(program)
                if len(self._steps) > PLANS:
                    self._steps.popitem(last=False)
            self._steps.move_to_end(shape)
            return self._steps[shape]

    def step(self, text: PartyText, turn: Turn, words: np.ndarray, number: int = 0) -> Results:
        """This party's half of a step's answer. The session of that number must be in a run of the plan of the turn's
        shape, and of the text's caches."""
        s = self._sessions[number]
        with s.agreeing(Reader(self.public.step_series(turn.capacity))):
            return step(self.public, s, self._parameters[s], turn, text.taken(s), words)

    def _infer(self, s: Session, request: Request, batch: Batch) -> Results:
        public = self.public
        forward = Forward(batch, self._parameters[s], public.recipe, public.profile)
        with s.agreeing(Reader(public.series(batch.longest))):
            return infer(s, public.architecture, request, forward, public.names)
