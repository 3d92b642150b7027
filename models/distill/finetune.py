"""From an encoder to a classifier: the teacher, trained on labels with exact functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secformer.models.data.batch import Batch, Row, batches
from secformer.models.distill import export
from secformer.models.distill.curves import draw
from secformer.models.distill.exact import EXACT_TORCH
from secformer.models.distill.losses import label_loss
from secformer.models.distill.model import TorchModel, start
from secformer.models.distill.resume import State, TrainingRun
from secformer.models.distill.scores import scores
from secformer.models.distill.stage import Stage
from secformer.models.distill.tasks import Examples, Task
from secformer.models.distill.torch_session import TorchSession
from secformer.models.distill.train import Tell, fit, on_stderr
from secformer.models.families.folder import ModelFolder
from secformer.protocols.recipes import Recipe

EVALUATED = 4096  # the most positions that are evaluated together

TEACHER = Stage("labels", rate=1e-4, epochs=3, dropout=0.1, patience=3)


@dataclass(frozen=True, eq=False)
class Corpus:
    """A task's examples, tokenised. Only training cuts the texts to a stage's length."""

    task: Task
    train: Examples
    dev: Examples
    train_rows: list[Row]
    dev_rows: list[Row]


def corpus(folder: ModelFolder, task: Task, train: Examples, dev: Examples) -> Corpus:
    """Tokenises both sets. Texts that are longer than the model allows are cut."""
    rows = folder.tokenizer.rows
    return Corpus(task, train, dev, rows(train.texts, truncation=True), rows(dev.texts, truncation=True))


def cut(rows: Sequence[Row], longest: int) -> list[Row]:
    """The rows, cut to at most `longest` tokens each."""
    return [Row(r.ids[:longest], r.segments[:longest], r.mask[:longest]) for r in rows]


def finetune(source: ModelFolder, task: Task, train: Examples, dev: Examples, out: Path, *, stage: Stage = TEACHER,
             device: Any = "cpu", half: bool = False, tell: Tell = on_stderr) -> dict[str, float]:
    """Trains a classifier and writes it to `out`. Returns its metrics on the dev set.

    Interrupted training is resumed. Raises ModelError where `out` holds a model, or `source` cannot be fine-tuned.
    """
    export.check_room(out, source.path)
    texts = corpus(source, task, train, dev)
    model = start(source, task.labels, seed=stage.seed, device=device)
    if task.regression:
        bias = model.architecture.weights()["head.bias"].parts[0].names[0]
        model.tensors[bias].fill_(float(train.labels.mean()))
    run = TrainingRun(out / "training", {"model": source.digest, "task": task.name, "texts": len(train),
                                     "dev": len(dev), "stages": [asdict(stage)]})
    state = train_on_labels(model, texts, EXACT_TORCH, stage, run, device=device, tell=tell)
    draw(out / "curves.png", {stage.name: state}, task.metrics[0])
    if half:
        model = export.rounded(model)
    export.write(out, source, model, None, half=half)
    found = evaluated(model, texts, EXACT_TORCH, device)
    run.finish(found)
    return found


def train_on_labels(model: TorchModel, texts: Corpus, recipe: Recipe, stage: Stage, run: TrainingRun, *,
                    device: Any = "cpu", tell: Tell = on_stderr) -> State:
    """Trains `model` in place on the task's labels, with a recipe's functions."""
    s = session(stage, device)
    labels = torch.tensor(texts.train.labels, device=device)
    labels = labels.float() if texts.task.regression else labels

    def loss(batch: Batch, places: np.ndarray) -> Tensor:
        logits = model(s, batch, recipe, dropout=stage.dropout)
        return label_loss(logits, labels[torch.from_numpy(places).to(device)], texts.task)

    return fit(model, cut(texts.train_rows, stage.longest), stage, loss, metric(model, texts, recipe, device), run,
               tell)


def session(stage: Stage, device: Any) -> TorchSession:
    """The session that a stage computes in."""
    return TorchSession(products=torch.bfloat16 if stage.half else torch.float32, device=device)


def metric(model: TorchModel, texts: Corpus, recipe: Recipe, device: Any) -> Callable[[], float]:
    """A function that returns the task's first metric on the dev set, for the model as it is at the call."""
    return lambda: evaluated(model, texts, recipe, device)[texts.task.metrics[0]]


def evaluated(model: TorchModel, texts: Corpus, recipe: Recipe, device: Any = "cpu") -> dict[str, float]:
    """The task's metrics on the dev set."""
    return scores(dev_logits(model, texts.dev_rows, recipe, device), texts.dev.labels, texts.task)


@torch.no_grad()
def dev_logits(model: TorchModel, rows: Sequence[Row], recipe: Recipe, device: Any = "cpu") -> np.ndarray:
    """The logits (B, L) of B rows, computed in float32."""
    s = TorchSession(device=device)
    out = np.zeros((len(rows), len(model.architecture.spec.labels)))
    for places, batch in batches(rows, EVALUATED):
        out[places] = model(s, batch, recipe).cpu().numpy()
    return out


