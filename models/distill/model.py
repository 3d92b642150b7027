"""A model with torch parameters, run by the same program as secure inference.

The parameters are the checkpoint's own tensors, under their own names. Every pass builds the tensors that the program
asks for from these parameters, by the rules of the architecture's layout. In a BERT, for example, query, key and value
become one transposed matrix that includes the scores' factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from secformer.models.data.batch import Batch
from secformer.models.data.parameters import Parameters
from secformer.models.data.tensors import TABLE, parts
from secformer.models.data.tensors import Tensor as Laid
from secformer.models.distill.torch_session import TorchSession
from secformer.models.distill.trace import Trace, traced
from secformer.models.families.architecture import Architecture
from secformer.models.families.blocks import Forward
from secformer.models.families.folder import ModelFolder
from secformer.models.families.heads import Head
from secformer.models.families.program import behind_embedding
from secformer.mpc.errors import ModelError
from secformer.mpc.ring import WORD_BITS
from secformer.protocols.recipes import Recipe

STARTS = (Head.ENCODER, Head.SEQUENCE, Head.MASKED, Head.PRETRAINING, Head.REPLACED)  # what classifiers are made from
SPREAD = 0.02  # standard deviation of new parameters, as in BERT


@dataclass
class TorchModel:
    """A checkpoint's tensors, by name. Call the model with a session, a batch and a recipe."""

    architecture: Architecture
    tensors: dict[str, Tensor]

    def __call__(self, s: TorchSession, batch: Batch, recipe: Recipe, trace: Trace | None = None, *,
                 dropout: float = 0.0) -> Tensor:
        """The logits (B, L) of a batch. `trace`, where given, collects what the run passes."""
        trace = trace if trace is not None else Trace()
        told = traced(recipe, trace, self.architecture.hidden_sites, dropout=dropout)
        forward = Forward(batch, self._parameters(s), told, trace.site)
        sums = self.architecture.embedding_sums(self._rows, batch)
        logits: Tensor = behind_embedding(s, self.architecture, sums, forward)["logits"].data
        return logits

    def _rows(self, name: str, shape: tuple[int, int], ids: np.ndarray) -> Tensor:
        table = self.tensors[name]
        return functional.embedding(torch.from_numpy(ids).to(table.device), table)

    def _parameters(self, s: TorchSession) -> Parameters:
        found = Parameters()
        for name, laid in self.architecture.layout(None).items():
            if laid.standing:
                found.matrices[name] = s.open_weight(self._built(laid))
            else:
                found.vectors[name] = s.accept(self._built(laid))
        return found

    def _built(self, laid: Laid) -> Tensor:
        """The same as `Laid.build`, from torch tensors."""
        each = [p.of(self.tensors[p.names[0]]) for p in laid.parts]
        if laid.formula is not None:
            made: Tensor = laid.formula(torch, *each)
            return made
        return each[0] if len(each) == 1 else torch.cat(each, laid.axis)

    def copy(self) -> TorchModel:
        """The same values in tensors of their own."""
        return TorchModel(self.architecture, {name: t.detach().clone() for name, t in self.tensors.items()})

    def trainable(self, *, words: bool) -> dict[str, Tensor]:
        """The parameters that learn, set to keep gradients. Without `words`, the word table is not among them."""
        table = self.architecture.tables()[TABLE].parts[0].names[0]
        for name, t in self.tensors.items():
            t.requires_grad_(bool(words) or name != table)
        return {name: t for name, t in self.tensors.items() if t.requires_grad}


def names(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """The shapes of an architecture's tensors, by their names in a checkpoint."""
    return {part.names[0]: part.shape for part in parts(architecture.layout(WORD_BITS))}


def load(folder: ModelFolder, *, device: Any = "cpu") -> TorchModel:
    """Reads a text classifier. Raises ModelError for another architecture."""
    architecture, read = folder.architecture, folder.checkpoint.read
    if architecture.head is not Head.SEQUENCE:
        raise ModelError(f"{folder.path} is a {architecture.spec.architecture}; distillation takes a "
                         f"{architecture.class_names(Head.SEQUENCE)}: fine-tune it first with secformer finetune")
    return TorchModel(architecture, {name: _tensor(read(name, shape), device)
                                     for name, shape in names(architecture).items()})


def start(folder: ModelFolder, labels: tuple[str, ...], *, seed: int, device: Any = "cpu") -> TorchModel:
    """A classifier over `labels` (one label for a regression), made from a pretrained model or from a classifier.

    Tensors that the checkpoint lacks are drawn at random from `seed`. So is the head, unless the checkpoint is a
    classifier over equally many labels. Raises ModelError for other architectures.
    """
    source = folder.architecture
    if source.head not in STARTS:
        raise ModelError(f"{folder.path} is a {source.spec.architecture}; fine-tuning takes "
                         f"{source.class_names(*STARTS)}")
    architecture = source.classifier(labels)
    same_head = source.head is Head.SEQUENCE and len(source.spec.labels) == len(labels)
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in names(architecture).items():
        kept = name in folder.checkpoint and (same_head or name not in architecture.head_tensors)
        fresh = np.zeros(shape) if name.endswith("bias") else rng.normal(0.0, SPREAD, shape)
        tensors[name] = _tensor(folder.checkpoint.read(name, shape) if kept else fresh, device)
    return TorchModel(architecture, tensors)


def _tensor(values: np.ndarray, device: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Tensors as float32 arrays."""
    return {name: t.detach().float().cpu().contiguous().numpy() for name, t in tensors.items()}
