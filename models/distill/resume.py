"""Training that goes on after an interruption: parameters, the optimiser's state and the curves, as safetensors and
JSON in the output's training folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from secformer.models.distill.stage import Stage
from secformer.mpc.errors import SettingsError


@dataclass
class State:
    """Where a stage stands.

    best     highest metric so far, at step `at`; `waited` checks ago
    history  a dict a check: step, loss (mean since the last check), metric
    """

    step: int = 0
    best: float = float("-inf")
    at: int = 0
    waited: int = 0
    done: bool = False
    history: list[dict[str, float]] = field(default_factory=list)


class TrainingRun:
    """A training folder. `facts` (model, data, stages) must be the same when training is taken up again."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]):
        self.folder = folder
        known = json.loads(json.dumps(facts))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "facts.json"
        if path.is_file():
            before = json.loads(path.read_text("utf-8"))
            if differing := sorted(k for k in {*known, *before} if known.get(k) != before.get(k)):
                raise SettingsError(f"{folder} holds training that was begun with other settings (differing: "
                                    f"{', '.join(differing)}); repeat those, or remove the folder to begin anew")
        _write(path, known)

    def load(self, stage: Stage) -> tuple[State, dict[str, Tensor]]:
        """The stage's state and tensors; a fresh state and none where it has not begun."""
        from safetensors.torch import load_file

        path = self._path(stage)
        if not path.is_file():
            return State(), {}
        facts = json.loads(path.with_suffix(".json").read_text("utf-8"))
        return State(**facts["state"]), load_file(str(path))

    def save(self, stage: Stage, state: State, tensors: Mapping[str, Tensor]) -> None:
        """Replaces the stage's files; the tensors last, so that they are never ahead of the state beside them."""
        from safetensors.torch import save_file

        path = self._path(stage)
        part = path.with_suffix(".part")
        save_file({name: t.detach().contiguous() for name, t in tensors.items()}, str(part))
        _write(path.with_suffix(".json"), {"stage": asdict(stage), "state": asdict(state)})
        part.replace(path)

    def finish(self, result: Mapping[str, float]) -> None:
        """Writes the metrics and removes the tensors, once the model is written; curves and settings stay."""
        _write(self.folder / "result.json", dict(result))
        for path in self.folder.glob("*.safetensors"):
            path.unlink()

    def _path(self, stage: Stage) -> Path:
        return self.folder / f"{stage.name}.safetensors"


def _write(path: Path, facts: Any) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    part.replace(path)
