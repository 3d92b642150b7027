"""A BERT with torch parameters, run by the same encoder program as secure inference.

Parameters are the checkpoint's own tensors under their own names; what the program asks for (query, key and value as
one matrix, transposed, with the scores' factor folded in) is built from them in every pass, by `models/layout`'s rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from secformer.models.config import ENCODER, SEQUENCE, BertSpec
from secformer.models.distill.session import TorchSession
from secformer.models.distill.trace import Trace, traced
from secformer.models.encoder import Bert, Parameters
from secformer.models.folder import ModelFolder
from secformer.models.heads import answer
from secformer.models.layout import POSITIONS, SEGMENTS, WORDS, embedding_layout, encoder_layout, parts
from secformer.models.layout import Tensor as Laid
from secformer.models.tokens import Batch
from secformer.mpc.errors import ModelError
from secformer.protocols.recipes import Recipe

SPREAD = 0.02  # standard deviation of new parameters, BERT's own


@dataclass
class TorchBert:
    """A checkpoint as tensors by name."""

    spec: BertSpec
    tensors: dict[str, Tensor]

    def __call__(self, s: TorchSession, batch: Batch, recipe: Recipe, trace: Trace | None = None, *,
                 dropout: float = 0.0) -> Tensor:
        """Logits (B, L)."""
        trace = trace if trace is not None else Trace()
        told = traced(recipe, trace, dropout=dropout)
        bert = Bert(self.spec, self._parameters(s), told, trace.site)
        logits: Tensor = answer(s, s.accept(self._embeddings(batch)), batch, bert)["logits"].data
        return logits

    def _embeddings(self, batch: Batch) -> Tensor:
        def rows(name: str, ids: np.ndarray) -> Tensor:
            table = self.tensors[name]
            return functional.embedding(torch.from_numpy(ids).to(table.device), table)

        return rows(WORDS, batch.ids) + rows(SEGMENTS, batch.segments) + rows(POSITIONS, batch.positions)

    def _parameters(self, s: TorchSession) -> Parameters:
        found = Parameters()
        for name, laid in encoder_layout(self.spec).items():
            if laid.standing:
                found.matrices[name] = s.provision(self._built(laid))
            else:
                found.vectors[name] = s.accept(self._built(laid))
        return found

    def _built(self, laid: Laid) -> Tensor:
        """`Laid.build`, on tensors."""
        each = [self.tensors[p.names[0]] for p in laid.parts]
        each = [(t.T if p.transpose else t) * p.factor if p.factor != 1.0 else t.T if p.transpose else t
                for t, p in zip(each, laid.parts, strict=True)]
        return each[0] if len(each) == 1 else torch.cat(each, laid.axis)

    def copy(self) -> TorchBert:
        """The same values in tensors of their own."""
        return TorchBert(self.spec, {name: t.detach().clone() for name, t in self.tensors.items()})

    def trainable(self, *, words: bool) -> dict[str, Tensor]:
        """Parameters that learn, set to keep gradients: all, or all but the word table."""
        for name, t in self.tensors.items():
            t.requires_grad_(bool(words) or name != WORDS)
        return {name: t for name, t in self.tensors.items() if t.requires_grad}


def names(spec: BertSpec) -> dict[str, tuple[int, ...]]:
    """The checkpoint tensors of an architecture and their shapes."""
    return {part.names[0]: part.shape for part in parts(embedding_layout(spec) | encoder_layout(spec))}


def load(folder: ModelFolder, *, device: Any = "cpu") -> TorchBert:
    """A sentence classifier's tensors. Raises ModelError for another architecture."""
    if folder.spec.architecture != SEQUENCE:
        raise ModelError(f"{folder.path} is a {folder.spec.architecture}; distillation takes a {SEQUENCE}: fine-tune "
                         f"it first with secformer finetune")
    read = folder.checkpoint.read
    return TorchBert(folder.spec, {name: _tensor(read(name, shape), device)
                                   for name, shape in names(folder.spec).items()})


def start(folder: ModelFolder, labels: tuple[str, ...], *, seed: int, device: Any = "cpu") -> TorchBert:
    """A classifier over `labels` (one for a regression) on a pretrained encoder; tensors that it lacks are drawn anew.

    A classifier over as many labels keeps its own head. Raises ModelError for other architectures.
    """
    if folder.spec.architecture not in (ENCODER, SEQUENCE):
        raise ModelError(f"{folder.path} is a {folder.spec.architecture}; fine-tuning takes {ENCODER} or {SEQUENCE}")
    problem = "regression" if len(labels) == 1 else "single"
    spec = replace(folder.spec, architecture=SEQUENCE, labels=labels, problem=problem, pooler=True, recipe=None)
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in names(spec).items():
        kept = name in folder.checkpoint and not (name.startswith("classifier")
                                                  and len(folder.spec.labels) != len(labels))
        fresh = np.zeros(shape) if name.endswith("bias") else rng.normal(0.0, SPREAD, shape)
        tensors[name] = _tensor(folder.checkpoint.read(name, shape) if kept else fresh, device)
    return TorchBert(spec, tensors)


def _tensor(values: np.ndarray, device: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Tensors as float32 arrays."""
    return {name: t.detach().float().cpu().contiguous().numpy() for name, t in tensors.items()}
