"""One party's side of a provisioned model: its plan for a request, and its half of the answer."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from secformer.models.encoder import Bert, Parameters
from secformer.models.pipeline import Results, infer
from secformer.models.provisioned import PublicModel
from secformer.models.sharing import GhostTensors, Inputs, Request, provision
from secformer.models.tokens import Batch, Row
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.ops.book import Reader
from secformer.mpc.session import Session
from secformer.mpc.sessions.recorder import PlanRecorder
from secformer.mpc.sessions.secure import SecureSession

PLANS = 64  # plans kept, by shape of the request


def blind_batch(lengths: np.ndarray, mask: np.ndarray) -> Batch:
    """A batch as a party knows it: lengths (B,) and attention mask (B, T), every id 0."""
    rows = []
    for length, attend in zip(lengths, mask, strict=True):
        nothing = np.zeros(int(length), dtype=np.int64)
        rows.append(Row(nothing, nothing, attend[: int(length)].astype(np.int64)))
    return Batch(tuple(rows))


class PartyModel:
    """What a party computes, apart from whom it talks to. Not thread-safe."""

    def __init__(self, public: PublicModel, session: SecureSession):
        self.public, self.session = public, session
        self._recorder = PlanRecorder(public.fixed, chunk=session.party.chunk)
        self._plans: OrderedDict[bytes, Plan] = OrderedDict()
        self._parameters: dict[Session, Parameters] = {}
        layout = public.layout

        def program(s: PlanRecorder) -> None:
            self._parameters[s] = provision(s, GhostTensors(layout), layout)

        self.provisioning = self._recorder.record(program)

    def provision(self, shares: Inputs) -> None:
        """Opens the weights' masks with the other party; the session must be in a run of `provisioning`."""
        self.session.forget_weights()
        self._parameters[self.session] = provision(self.session, shares, self.public.layout)

    @property
    def provisioned(self) -> bool:
        return self.session in self._parameters

    def plan(self, batch: Batch) -> Plan:
        """The correlations of one request, known from its public shape."""
        key = batch.lengths.tobytes() + b":" + batch.mask.tobytes()
        if key not in self._plans:
            self._plans[key] = self._recorder.record(
                lambda s: self._infer(s, self._request(batch, np.broadcast_to(np.uint64(0), self._shape(batch))), batch)
            )
            if len(self._plans) > PLANS:
                self._plans.popitem(last=False)
        self._plans.move_to_end(key)
        return self._plans[key]

    def answer(self, batch: Batch, words: np.ndarray) -> Results:
        """This party's half of the answer, by result name; the session must be in a run of the batch's plan."""
        return self._infer(self.session, self._request(batch, words), batch)

    def _infer(self, s: Session, request: Request, batch: Batch) -> Results:
        bert = Bert(self.public.spec, self._parameters[s], self.public.recipe, self.public.profile)
        with s.agreeing(Reader(self.public.series(batch.longest))):
            return infer(s, request, batch, bert, self.public.names)

    def _shape(self, batch: Batch) -> tuple[int, int]:
        return batch.tokens, self.public.spec.vocab + self.public.spec.types

    def _request(self, batch: Batch, words: np.ndarray) -> Request:
        return Request(lambda: words, self._shape(batch), True, self.public.width)
