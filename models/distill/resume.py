"""Training that can be resumed: parameters, the optimiser's state and the curves, saved in the training folder.

The tensors are saved as safetensors, the rest as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from secformer.models.distill.stage import Stage
from secformer.mpc.errors import SettingsError
from secformer.mpc.strict_json import read_foreign


@dataclass
class State:
    """Where a stage stands.

    step     steps done so far
    best     highest metric so far, found at step `at`
    waited   checks since `best` was found
    done     whether the stage has ended
    history  one dict per check: step, loss (mean since the check before), metric
    """

    step: int = 0
    best: float = float("-inf")
    at: int = 0
    waited: int = 0
    done: bool = False
    history: list[dict[str, float]] = field(default_factory=list)


class TrainingRun:
    """A training folder. Training can be resumed only with the same `facts`: model, data and stages.

    Raises SettingsError where the folder holds training with other facts.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]):
        self.folder = folder
        known = json.loads(json.dumps(facts))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "facts.json"
        if path.is_file():
            before = _read(path)
            if differing := sorted(k for k in {*known, *before} if known.get(k) != before.get(k)):
                raise SettingsError(f"{folder} holds training that was begun with other settings (differing: "
                                    f"{', '.join(differing)}); use the same ones, or remove the folder to start again")
        _write(path, known)

    def load(self, stage: Stage) -> tuple[State, dict[str, Tensor]]:
        """The stage's state and tensors: a fresh state and no tensors where the stage has not begun."""
        from safetensors.torch import load_file

        path = self._path(stage)
        if not path.is_file():
            return State(), {}
        facts = _read(path.with_suffix(".json"))
        return State(**facts["state"]), load_file(str(path))

    def save(self, stage: Stage, state: State, tensors: Mapping[str, Tensor]) -> None:
        """Replaces the stage's files. The tensors come last, so they are never newer than the state beside them."""
        from safetensors.torch import save_file

        path = self._path(stage)
        part = path.with_suffix(".part")
        save_file({name: t.detach().contiguous() for name, t in tensors.items()}, str(part))
        _write(path.with_suffix(".json"), {"stage": asdict(stage), "state": asdict(state)})
        part.replace(path)

    def finish(self, result: Mapping[str, float]) -> None:
        """Writes the metrics and removes the tensors, after the model was written. Curves and settings stay."""
        _write(self.folder / "result.json", dict(result))
        for path in self.folder.glob("*.safetensors"):
            path.unlink()

    def _path(self, stage: Stage) -> Path:
        return self.folder / f"{stage.name}.safetensors"


def _read(path: Path) -> dict[str, Any]:
    """Raises SettingsError for a file that this module did not write."""
    try:
        facts = read_foreign(path.read_bytes())
        if not isinstance(facts, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read ({error}); remove the training folder to start again") from error
    return facts


def _write(path: Path, facts: Any) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    part.replace(path)
