"""A classifier on a labelled set, in plaintext and securely: GLUE's metrics, agreement, cost. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from secformer.models.data.checkpoint import PathLike
from secformer.models.distill.scores import predictions, scores
from secformer.models.distill.tasks import Examples, Task, for_model
from secformer.models.families.folder import ModelFolder
from secformer.models.run.local import SecureModel, reference
from secformer.models.run.options import settings_of
from secformer.models.run.progress import Progress
from secformer.mpc.meter import Cost
from secformer.protocols.recipes import Recipe


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model scores on a labelled set.

    plain       the task's metrics of the plaintext model (which `plain_model` runs), by name
    secure      the same metrics of the secure run; None without a secure run
    agreement   fraction of examples that get the same label in both; None without a secure run, and for regressions
    error       largest absolute difference of a logit between both
    cost        of the secure run on all examples; `provisioning` is paid once per model
    """

    task: str
    examples: int
    recipe: str
    plain: dict[str, float]
    secure: dict[str, float] | None = None
    agreement: float | None = None
    error: float | None = None
    cost: Cost | None = None
    provisioning: Cost | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "task": self.task, "examples": self.examples, "recipe": self.recipe, "plain": self.plain,
            "secure": self.secure, "label_agreement": self.agreement, "max_logit_error": self.error,
            "cost": self.cost.as_dict() if self.cost is not None else None,
            "provisioning": self.provisioning.as_dict() if self.provisioning is not None else None,
            "notes": list(self.notes),
        }


def evaluate(model: PathLike, task: Task, examples: Examples, *, secure: bool = False, recipe: Recipe | str = "auto",
             backend: str = "auto", progress: bool | Progress = False, **settings: Any) -> Evaluation:
    """Scores the model in plaintext and, with `secure`, also on shares, on the same examples.

    `settings` are fields of `Settings`. By default, texts that are too long are cut, and only the head's answer is
    revealed. Raises ModelError where the model's head does not fit the task, and otherwise as `secure_model` does.
    """
    settings = {"truncation": True, "output": "head"} | settings
    folder = ModelFolder(model)
    task = for_model(task, folder.architecture, folder.path)
    chosen = settings_of(settings)
    loaded = SecureModel(folder, recipe, None, chosen, backend) if secure else None  # refuses bad settings early
    theirs = np.asarray(reference(folder, **settings)(examples.texts).logits)
    found = scores(theirs, examples.labels, task)
    if loaded is None:
        return Evaluation(task.name, len(examples), "plaintext", found)
    with loaded:
        provisioning = loaded.provision()
        out = loaded(examples.texts, progress)
        mine = np.asarray(out.logits)
    same = predictions(mine, task) == predictions(theirs, task)
    return Evaluation(
        task.name, len(examples), loaded.recipe.name, found, scores(mine, examples.labels, task),
        None if task.regression else float(same.mean()), float(np.abs(mine - theirs).max()), out.cost,
        provisioning, tuple(out.notes),
    )
