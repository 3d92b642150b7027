"""Texts that grow in the models of one process: in the secure model, and in its twin."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from secformer.models.data.batch import Batch
from secformer.models.data.inputs import Request
from secformer.models.data.parameters import Parameters
from secformer.models.families.blocks import Forward
from secformer.models.families.caching import caches
from secformer.models.families.decoder import Decoder
from secformer.models.families.program import GUARD, Results, infer
from secformer.models.run.decoding import LOGITS, Decoding, Step, Turn
from secformer.models.run.guard import named
from secformer.models.run.progress import Progress, silent
from secformer.models.run.turns import Turns
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.fixed import decode
from secformer.mpc.guarding import Guarded
from secformer.mpc.meter import Cost
from secformer.mpc.session import Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.simulate import World

Plans = OrderedDict[tuple[int, int, int], tuple[Plan, Sequence[str]]]  # by shape, with the places of a guard
PLANS = 64
Prepare = Callable[[Batch, Parameters, Progress], Forward]


class SecureDecoding(Decoding):
    """A text in a `SecureModel`. Steps of one shape have one plan, which all texts of a model share.

    world    the model's; raises SettingsError where the model is closed
    turns    the model's: other texts and calls wait while a step runs
    prepare  the context of a forward pass
    halves   both parties' shares of new tokens
    """

    def __init__(self, decoder: Decoder, world: Callable[[], World], turns: Turns,
                 parameters: Mapping[Session, Parameters], prepare: Prepare,
                 halves: Callable[[Batch], tuple[Request, Request]], guarded: bool, plans: Plans):
        super().__init__(decoder)
        self._world, self._turns, self._parameters, self._prepare, self._halves = (
            world, turns, parameters, prepare, halves)
        self._names, self._plans, self._name = (LOGITS, *((GUARD,) if guarded else ())), plans, world().fresh()
        self._caches = {s: caches(s, decoder, parameters[s]) for s in world().parties}

    def close(self) -> None:
        super().close()
        self._caches.clear()

    def _ask(self, batch: Batch, turn: Turn) -> Step:
        with self._turns.take():
            return self._asked(self._world(), batch, turn, self._turns.telling(self.tell))

    def _asked(self, world: World, batch: Batch, turn: Turn, tell: Progress) -> Step:
        halves = self._halves(batch)
        guards = {s: Guarded(apart=True) for s in (*world.parties, world.recorder)}

        def program(s: Session, request: Request) -> Results:
            pairs = self._caches[s] if s in self._caches else caches(s, self.decoder, self._parameters[s])
            told = tell if s is world.parties[0] else silent
            forward = self._prepare(batch, self._parameters[s], told)
            return infer(s, self.decoder, request, forward, self._names, guards[s], turn.answer(pairs))

        if turn.shape not in self._plans:
            self._plans[turn.shape] = world.recorder.record(program, halves[0].ghost()), guards[world.recorder].places
        self._plans.move_to_end(turn.shape)
        plan, places = self._plans[turn.shape]
        if len(self._plans) > PLANS:
            self._plans.popitem(last=False)
        outcome = world.run(program, *halves, plan=plan, cache=self._name)
        mine, theirs = outcome.results
        found = {name: decode(words + theirs[name], world.fixed.frac) for name, words in mine.items()}
        return step_of(found, places, outcome.cost)


class PlainDecoding(Decoding):
    """A text in a `PlainModel`."""

    def __init__(self, decoder: Decoder, session: PlainSession, turns: Turns, parameters: Parameters, prepare: Prepare,
                 request: Callable[[Batch], Request], guarded: bool):
        super().__init__(decoder)
        self._session, self._turns, self._parameters = session, turns, parameters
        self._prepare, self._request = prepare, request
        self._names = LOGITS, *((GUARD,) if guarded else ())
        self._caches = caches(session, decoder, parameters)

    def _ask(self, batch: Batch, turn: Turn) -> Step:
        guard = Guarded(apart=True)
        with self._turns.take(), np.errstate(over="ignore", invalid="ignore"):
            forward = self._prepare(batch, self._parameters, self._turns.telling(self.tell))
            found = infer(self._session, self.decoder, self._request(batch), forward, self._names, guard,
                          turn.answer(self._caches))
        return step_of(found, guard.places, Cost())


def step_of(found: Mapping[str, Any], places: Sequence[str], cost: Cost) -> Step:
    """A step from its results by name."""
    answers = named(found, places)
    return Step(np.asarray(answers[LOGITS]), answers[GUARD][0] if GUARD in answers else (), cost)
