"""Loss and dev metric over the steps, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from secformer.models.distill.resume import State


def draw(path: Path, stages: Mapping[str, State], metric: str) -> None:
    """Writes a PNG with one row per stage: the loss on the left, the dev metric on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 2.6 * len(stages)), layout="constrained")
    axes = figure.subplots(len(stages), 2, squeeze=False)
    for (name, state), (left, right) in zip(stages.items(), axes, strict=True):
        steps = [point["step"] for point in state.history]
        left.plot(steps, [point["loss"] for point in state.history], marker=".")
        left.set(title=f"{name}: training loss", xlabel="step")
        right.plot(steps, [point["metric"] for point in state.history], marker=".", color="tab:green")
        right.axvline(state.at, color="grey", linewidth=0.8)
        right.set(title=f"{name}: dev {metric if name != 'inner' else 'loss, negated'}", xlabel="step")
    figure.savefig(path, dpi=110)
