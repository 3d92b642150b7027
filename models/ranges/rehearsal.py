"""Rehearsals before anything is shared: will this model, recipe, profile and number format fit the words at all?

The recorder finds what shapes and ranges alone forbid; the strict twin finds values that leave a promise which no range
profile records, such as large attention values.
"""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np

from secformer.models.data.batch import Batch, blind_batch
from secformer.models.data.parameters import load_weights
from secformer.models.data.shares import GhostTensors, PlainTensors
from secformer.models.families.blocks import Forward
from secformer.models.families.caching import last_tokens
from secformer.models.families.decoder import Decoder
from secformer.models.families.folder import ModelFolder
from secformer.models.families.program import behind_embedding
from secformer.models.ranges.profile import RangeProfile, builtin_rows
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.protocols.recipes import Recipe

SOME = 1, 32  # new tokens of steps, behind as many others as a text has: few rows may take another way than many
EVERY = 7  # step through the built-in texts: the strict twin runs each seventh, and the longest, to save time


def rehearse(folder: ModelFolder, recipe: Recipe, profile: RangeProfile, fixed: FixedPoint, *,
             guarded: bool = True) -> None:
    """Records the plan of a text as long as the model takes, of a decoder the last tokens of such a text, SOME at once,
    with its guard if it has one. Raises RangeError, with the place, where a protocol does not fit the number format or
    a range is beyond its domain."""
    longest = folder.architecture.inputs.longest
    several = {min(longest, some) for some in SOME} if isinstance(folder.architecture, Decoder) else {longest}
    for tokens in sorted(several):
        _rehearse(folder, recipe, profile, fixed, tokens, guarded)


def _rehearse(folder: ModelFolder, recipe: Recipe, profile: RangeProfile, fixed: FixedPoint, tokens: int,
              guarded: bool) -> None:
    architecture = folder.architecture
    tensors = GhostTensors(folder.layout(fixed, private=False))
    decoder = architecture if isinstance(architecture, Decoder) else None
    batch = blind_batch(np.array([tokens]), np.ones((1, tokens), dtype=bool))

    def program(s: PlanRecorder) -> None:
        forward = Forward(batch, load_weights(s, tensors), recipe, profile)
        x = ghost((batch.tokens, architecture.inputs.hidden))
        with s.guarding(batch.owners, batch.size) if guarded else nullcontext():
            if decoder is None:
                behind_embedding(s, architecture, x, forward)
            else:
                decoder.hidden(s, s.accept(x), forward, last_tokens(s, decoder, forward.parameters, tokens))

    PlanRecorder(fixed).record(program)


def rehearse_values(folder: ModelFolder, recipe: Recipe, profile: RangeProfile, fixed: FixedPoint) -> None:
    """Runs a few built-in texts through the strict twin. Raises RangeError, with the place, where a value leaves what
    the protocols promise."""
    s = PlainSession(fixed, strict=True)
    parameters = load_weights(s, PlainTensors(folder.layout(fixed, private=False), folder.checkpoint))
    rows = builtin_rows(folder)
    for row in [*rows[::EVERY], max(rows, key=len)]:
        batch = Batch((row,))
        behind_embedding(s, folder.architecture, folder.embeddings(batch), Forward(batch, parameters, recipe, profile))
