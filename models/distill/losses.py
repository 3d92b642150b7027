"""What students learn from: labels, a teacher's logits, and its hidden states and attention maps.

B texts, L labels, N packed tokens, C hidden, H heads, T tokens of the longest.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from secformer.models.data.batch import Batch
from secformer.models.distill.tasks import Task
from secformer.models.distill.trace import Trace


def label_loss(logits: Tensor, labels: Tensor, task: Task) -> Tensor:
    """Cross entropy of logits (B, L) and labels (B,); for a regression, mean squared error."""
    if task.regression:
        return functional.mse_loss(logits[:, 0], labels)
    return functional.cross_entropy(logits, labels)


def logits_loss(mine: Tensor, theirs: Tensor, task: Task) -> Tensor:
    """Soft cross entropy of logits (B, L) at temperature 1; for a regression, mean squared error.

    Source: MPCFormer, section 3.
    """
    if task.regression:
        return functional.mse_loss(mine, theirs)
    return functional.cross_entropy(mine, theirs.softmax(-1))


def inner_loss(mine: Trace, theirs: Trace, batch: Batch) -> Tensor:
    """Squared errors of hidden states and of attention maps, each as the mean over layers.

    Where the student has fewer layers, each of its layers stands for k of the teacher's, and learns the last of them.
    The error of a hidden state is divided by the teacher's variance, so that layers of different scale weigh the same.
    The error of a map is the squared distance of its rows, over the rows that belong to tokens.

    Source: MPCFormer, section 3, after TinyBERT.
    """
    every = len(theirs.attention_maps) // len(mine.attention_maps)
    pairs = zip(mine.hidden_states, theirs.hidden_states[::every], strict=True)
    states = [functional.mse_loss(a, b) / b.var() for a, b in pairs]
    present = torch.from_numpy(batch.present).to(states[0].device)
    maps = []
    for a, b in zip(mine.attention_maps, theirs.attention_maps[every - 1 :: every], strict=True):
        rows = ((a - b) ** 2).sum(-1).transpose(1, 2)  # (B, T, H)
        maps.append(rows[present].mean())
    return torch.stack(states).mean() + torch.stack(maps).mean()
