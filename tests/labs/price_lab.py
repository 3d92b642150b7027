"""What a text costs in a model, by the plan recorder alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from secformer.models.data.batch import Batch, Row
from secformer.models.data.parameters import load_weights
from secformer.models.data.shares import GhostTensors
from secformer.models.families.architecture import Architecture
from secformer.models.families.blocks import Forward
from secformer.models.families.program import behind_embedding
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.protocols.ranges import Site
from secformer.protocols.recipes import FAITHFUL


def price(architecture: Architecture, at: Site | Callable[[str], Site], length: int) -> np.ndarray:
    """Online rounds and bytes of one text, whose sites have the ranges `at`: all the same, or each its own."""
    nothing, ones = np.zeros(length, np.int64), np.ones(length, np.int64)
    batch, tensors = Batch((Row(nothing, nothing, ones),)), GhostTensors(architecture.layout(None))

    def program(s: PlanRecorder, run: bool) -> None:
        forward = Forward(batch, load_weights(s, tensors), FAITHFUL, at if callable(at) else lambda site: at)
        if run:
            behind_embedding(s, architecture, ghost((length, architecture.hidden_size)), forward)

    full, provisioning = (PlanRecorder().record(program, run) for run in (True, False))
    return np.array([full.rounds - provisioning.rounds, full.bytes - provisioning.bytes])
