"""Rehearsals before anything is shared: will this model, recipe, profile and number format fit the words at all?

The recorder finds what shapes and ranges alone forbid; the strict twin finds values that leave a promise which no range
profile records, such as large attention values.
"""

from __future__ import annotations

from secformer.models.encoder import Bert
from secformer.models.folder import ModelFolder
from secformer.models.heads import answer
from secformer.models.profile import RangeProfile, builtin_rows
from secformer.models.sharing import GhostTensors, PlainTensors, provision
from secformer.models.tokens import Batch
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.protocols.recipes import Recipe

EVERY = 7  # of the built-in texts, the strict twin takes each seventh and the longest


def rehearse(folder: ModelFolder, recipe: Recipe, profile: RangeProfile, fixed: FixedPoint) -> None:
    """Records one text's plan. Raises RangeError, with the place, where a protocol does not fit the number format or a
    range is beyond its domain."""
    layout = folder.layout(fixed, private=False)
    batch = Batch((max(builtin_rows(folder), key=len),))

    def program(s: PlanRecorder) -> None:
        bert = Bert(folder.spec, provision(s, GhostTensors(layout), layout), recipe, profile)
        answer(s, s.accept(ghost((batch.tokens, folder.spec.hidden))), batch, bert)

    PlanRecorder(fixed).record(program)


def rehearse_values(folder: ModelFolder, recipe: Recipe, profile: RangeProfile, fixed: FixedPoint) -> None:
    """Runs a few built-in texts through the strict twin. Raises RangeError, with the place, where a value leaves what
    the protocols promise."""
    layout = folder.layout(fixed, private=False)
    s = PlainSession(fixed, strict=True)
    bert = Bert(folder.spec, provision(s, PlainTensors(layout, folder.checkpoint), layout), recipe, profile)
    rows = builtin_rows(folder)
    for row in [*rows[::EVERY], max(rows, key=len)]:
        batch = Batch((row,))
        answer(s, s.accept(folder.embeddings(batch)), batch, bert)
