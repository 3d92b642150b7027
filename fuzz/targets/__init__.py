"""The targets: every reader of bytes from outside.

To add one: write valid examples in `fuzz/seeds.py`, a reader beside its relatives here, and a `Target` in the file's
`TARGETS`. `tests/fuzz/test_targets.py` finds source files that read and that no target names.
"""

from __future__ import annotations

from fuzz.target import Target
from fuzz.targets import (
    batch,
    bodies,
    browsers,
    channels,
    dealer,
    gateway,
    models,
    plans,
    ports,
    records,
    settings,
    state,
)

TARGETS: tuple[Target, ...] = (*channels.TARGETS, *plans.TARGETS, *bodies.TARGETS, *ports.TARGETS, *browsers.TARGETS,
                               *dealer.TARGETS, *settings.TARGETS, *state.TARGETS, *records.TARGETS, *models.TARGETS,
                               *gateway.TARGETS, *batch.TARGETS)
