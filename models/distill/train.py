"""The training loop: AdamW, one batch per step, regular checks of the dev metric, and the best parameters kept."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from secformer.models.data.batch import Batch, Row
from secformer.models.distill.device import flushed
from secformer.models.distill.model import TorchModel
from secformer.models.distill.resume import State, TrainingRun
from secformer.models.distill.stage import Stage, order
from secformer.mpc.errors import RangeError

Tell = Callable[[str], None]
Loss = Callable[[Batch, np.ndarray], Tensor]  # a batch and its texts' places in the training set -> the loss
CLIP = 1.0  # the largest norm of the gradients; larger ones are scaled down


def on_stderr(text: str) -> None:
    """Writes one line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)


@flushed()
def fit(model: TorchModel, rows: Sequence[Row], stage: Stage, loss: Loss, score: Callable[[], float],
        run: TrainingRun, tell: Tell = on_stderr) -> State:
    """Trains `model` in place, and leaves it with the parameters of the best check. Resumes a stage that `run` holds.

    loss   the loss of a batch; its second argument is the places of the batch's texts in `rows`
    score  the dev metric of the model as it is at the call; higher is better

    Raises RangeError where the loss is not finite.
    """
    parameters = model.trainable(words=stage.words)
    state, tensors = run.load(stage)
    optimiser = _optimiser(parameters, stage)
    best = {name: p.detach().clone() for name, p in parameters.items()}
    if tensors:
        best = _restore(parameters, optimiser, tensors)
    an_epoch, steps = stage.steps_an_epoch(len(rows)), stage.steps(len(rows))
    every = max(1, an_epoch // stage.checks)
    batches: list[np.ndarray] = []
    losses: list[float] = []
    if state.step and not state.done:
        tell(f"{stage.name}: resumed at step {state.step} of {steps}")
    started, begun = time.monotonic(), state.step
    while state.step < steps and not state.done:
        epoch, place = divmod(state.step, an_epoch)
        if not batches or not place:
            batches = order(rows, stage, epoch)
        torch.manual_seed((stage.seed << 24) + state.step)
        losses.append(_step(model, parameters, optimiser, batches[place], rows, stage, loss, state.step, steps))
        state.step += 1
        if state.step % every == 0 or state.step == steps:
            _check(state, losses, score(), stage, parameters, best)
            losses = []
            state.done = state.step == steps or 0 < stage.patience <= state.waited
            run.save(stage, state, _tensors(parameters, optimiser, best))
            speed = (time.monotonic() - started) / (state.step - begun)
            tell(f"{stage.name}: step {state.step} of {steps}, loss {state.history[-1]['loss']:.4f}, dev "
                 f"{state.history[-1]['metric']:.4f} (best {state.best:.4f} at {state.at}), "
                 f"{speed * (steps - state.step):.0f} s left")
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(best[name])
            p.requires_grad_(False)
            p.grad = None
    return state


def _step(model: TorchModel, parameters: dict[str, Tensor], optimiser: torch.optim.AdamW, places: np.ndarray,
          rows: Sequence[Row], stage: Stage, loss: Loss, step: int, steps: int) -> float:
    for group in optimiser.param_groups:
        group["lr"] = stage.rate_at(step, steps)
    optimiser.zero_grad()
    value = loss(Batch(tuple(rows[i] for i in places)), places)
    value.backward()
    torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP)
    optimiser.step()
    found = float(value.detach())
    if not math.isfinite(found):
        raise RangeError(f"{stage.name}: the loss is {found} at step {step}; lower the learning rate ({stage.rate:g})")
    return found


def _check(state: State, losses: list[float], metric: float, stage: Stage, parameters: dict[str, Tensor],
           best: dict[str, Tensor]) -> None:
    state.history.append({"step": state.step, "loss": sum(losses) / len(losses), "metric": metric})
    state.waited += 1
    if metric > state.best:
        state.best, state.at, state.waited = metric, state.step, 0
        for name, p in parameters.items():
            best[name].copy_(p.detach())


def _optimiser(parameters: dict[str, Tensor], stage: Stage) -> torch.optim.AdamW:
    matrices = [p for p in parameters.values() if p.ndim > 1]
    vectors = [p for p in parameters.values() if p.ndim <= 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": stage.decay},
                              {"params": vectors, "weight_decay": 0.0}], lr=stage.rate, fused=True)


def _tensors(parameters: dict[str, Tensor], optimiser: torch.optim.AdamW, best: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for name, p in parameters.items():
        out[f"now/{name}"], out[f"best/{name}"] = p, best[name]
        for key, value in optimiser.state[p].items():
            out[f"{key}/{name}"] = value
    return out


def _restore(parameters: dict[str, Tensor], optimiser: torch.optim.AdamW, tensors: dict[str, Tensor]
             ) -> dict[str, Tensor]:
    """Restores the parameters and the optimiser from a run's tensors. Returns the best parameters."""
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(tensors[f"now/{name}"])
            if f"step/{name}" in tensors:  # a parameter that gets no gradient in this stage has no state
                optimiser.state[p] = {key: tensors[f"{key}/{name}"].to(p.device if key != "step" else "cpu")
                                      for key in ("step", "exp_avg", "exp_avg_sq")}
    return {name: tensors[f"best/{name}"].to(p.device) for name, p in parameters.items()}
