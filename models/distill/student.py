"""From a teacher to a student that computes other functions: distillation in two stages.

The student starts from the teacher's weights. It learns first the teacher's hidden states and attention maps, then the
teacher's logits. Source: MPCFormer (Li et al., ICLR 2023), section 3, which SecFormer follows.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secformer.models.data.batch import Batch, batches
from secformer.models.distill import export
from secformer.models.distill.curves import draw
from secformer.models.distill.exact import EXACT_TORCH
from secformer.models.distill.finetune import Corpus, corpus, cut, evaluated, metric, session, train_on_labels
from secformer.models.distill.losses import inner_loss, logits_loss
from secformer.models.distill.model import TorchModel, load
from secformer.models.distill.resume import State, TrainingRun
from secformer.models.distill.stage import Stage
from secformer.models.distill.tasks import Examples, Task, for_model
from secformer.models.distill.torch_session import TorchSession
from secformer.models.distill.trace import Trace
from secformer.models.distill.train import Tell, fit, on_stderr
from secformer.models.families.architecture import LAYERS
from secformer.models.families.folder import ModelFolder
from secformer.mpc.errors import ModelError
from secformer.protocols.recipes import Recipe

INNER = Stage("inner", rate=2e-4, epochs=2)
LOGITS = Stage("logits", rate=5e-5, epochs=1, patience=3)
PROBED = 256  # dev texts on which the first stage's loss is measured at a check


def distill(source: ModelFolder, recipe: Recipe, task: Task, train: Examples, dev: Examples, out: Path, *,
            smaller: ModelFolder | None = None, inner: Stage | None = INNER, logits: Stage = LOGITS,
            labels_only: bool = False, device: Any = "cpu", half: bool = False,
            tell: Tell = on_stderr) -> dict[str, float]:
    """Writes a student of the teacher in `source` to `out`, with its range profile. Returns its metrics on the dev set.

    smaller        a model to start from instead of the teacher, with fewer layers, neurons or positions
    inner, logits  the two stages; None leaves the first one out
    labels_only    no distillation, for comparison: the student learns from labels, in a stage as `logits`
    half           store the weights in float16

    Interrupted training is resumed. Raises ModelError where the teacher does not fit the task, `smaller` does not fit
    the teacher, or `out` holds a model.
    """
    for folder in (source, *([smaller] if smaller is not None else [])):
        export.check_room(out, folder.path)
    task = for_model(task, source.architecture, source.path)
    texts, teacher = corpus(source, task, train, dev), load(source, device=device)
    start = source if smaller is None else smaller
    if smaller is not None:
        check_fit(smaller, source)
    student = teacher.copy() if smaller is None else load(smaller, device=device)
    stages = [s for s in (None if labels_only else inner, logits) if s is not None]
    facts = {"model": source.digest, "start": start.digest, "design": recipe.name, "task": task.name,
             "texts": len(train), "dev": len(dev), "labels_only": labels_only, "stages": [asdict(s) for s in stages]}
    run = TrainingRun(out / "training", facts)
    states: dict[str, State] = {}
    for stage in stages:
        if labels_only:
            states[stage.name] = train_on_labels(student, texts, recipe, stage, run, device=device, tell=tell)
        elif stage is inner:
            states[stage.name] = _learn_inner(student, teacher, texts, recipe, stage, run, device, tell)
        else:
            states[stage.name] = _learn_logits(student, teacher, texts, recipe, stage, run, device, tell)
        draw(out / "curves.png", states, task.metrics[0])
    if half:
        student = export.rounded(student)
    folder = export.write(out, start, student, recipe, half=half)
    tell("measuring the range profile")
    export.write_profile(folder, texts.train_rows)
    found = evaluated(student, texts, recipe, device)
    run.finish(found)
    return found


def check_fit(smaller: ModelFolder, teacher: ModelFolder) -> None:
    """Raises ModelError where the layers of `smaller` cannot learn from the teacher's layers."""
    a, b = smaller.architecture, teacher.architecture
    facts = {"architecture": (a.spec.architecture, b.spec.architecture), "labels": (a.spec.labels, b.spec.labels),
             **{what: (size, b.sizes.get(what)) for what, size in a.sizes.items() if what != LAYERS}}
    for what, (mine, theirs) in facts.items():
        if mine != theirs:
            raise ModelError(f"{smaller.path} has {what} {mine}, but its teacher {teacher.path} has {theirs}; only "
                             f"layers, neurons and positions may be fewer")
    if b.sizes[LAYERS] % a.sizes[LAYERS]:
        raise ModelError(f"{smaller.path} has {a.sizes[LAYERS]} layers, and its teacher has {b.sizes[LAYERS]}, which "
                         f"is not a multiple; the number of the student's layers must divide the teacher's")


def _learn_inner(student: TorchModel, teacher: TorchModel, texts: Corpus, recipe: Recipe, stage: Stage,
                 run: TrainingRun, device: Any, tell: Tell) -> State:
    """Stage 1: hidden states and attention maps."""
    s = session(stage, device)

    def distance(s: TorchSession, batch: Batch) -> Tensor:
        mine, theirs = Trace(maps=True), Trace(maps=True)
        with torch.no_grad():
            teacher(s, batch, EXACT_TORCH, theirs)
        student(s, batch, recipe, mine)
        return inner_loss(mine, theirs, batch)

    @torch.no_grad()
    def watched() -> float:
        found = [(float(distance(s, batch)), batch.size) for _, batch in batches(texts.dev_rows[:PROBED], 4096)]
        return -sum(d * n for d, n in found) / sum(n for _, n in found)

    rows = cut(texts.train_rows, stage.longest)
    return fit(student, rows, stage, lambda batch, places: distance(s, batch), watched, run, tell)


def _learn_logits(student: TorchModel, teacher: TorchModel, texts: Corpus, recipe: Recipe, stage: Stage,
                  run: TrainingRun, device: Any, tell: Tell) -> State:
    """Stage 2: the teacher's logits."""
    s = session(stage, device)

    def loss(batch: Batch, places: np.ndarray) -> Tensor:
        with torch.no_grad():
            theirs = teacher(s, batch, EXACT_TORCH)
        return logits_loss(student(s, batch, recipe, dropout=stage.dropout), theirs, texts.task)

    rows = cut(texts.train_rows, stage.longest)
    return fit(student, rows, stage, loss, metric(student, texts, recipe, device), run, tell)
