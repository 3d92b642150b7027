"""A model folder, opened and proved usable before anything is shared."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from secformer.models.config import ENCODER, read_spec
from secformer.models.layout import (
    POSITIONS,
    SEGMENTS,
    WORDS,
    Tensor,
    embedding_layout,
    encoder_layout,
    parts,
    table_width,
)
from secformer.models.tokens import Batch, Tokenizer
from secformer.models.weights import Checkpoint
from secformer.mpc.errors import ModelError
from secformer.mpc.fixed import FixedPoint


class ModelFolder:
    """Config, tokenizer and tensors of a local Hugging Face folder; nothing is fetched, and no code in it is run."""

    def __init__(self, path: str | os.PathLike[str]):
        if not isinstance(path, str | os.PathLike):
            raise ModelError(f"a model is a folder's path or a loaded SecureModel, got {type(path).__name__}")
        self.path = Path(path)
        if not self.path.is_dir():
            raise ModelError(f"{self.path} is not a folder; give a local folder with config.json, model.safetensors "
                             f"and tokenizer files (nothing is downloaded)")
        self.spec = read_spec(self.path)
        self.checkpoint = Checkpoint(self.path)
        self.notes: list[str] = []
        if self.spec.architecture == ENCODER and "pooler.dense.weight" not in self.checkpoint:
            self.spec = replace(self.spec, pooler=False)
            self.notes.append("the checkpoint has no pooler, so there is no pooler_output")
        self.tokenizer = Tokenizer(self.path, self.spec)

    def verify(self, fixed: FixedPoint) -> None:
        """Reads every tensor once: shape, kind, finite, below 2^magnitude. Adds a note on tensors that go unused."""
        bound = 2.0**fixed.magnitude
        for part in parts(encoder_layout(self.spec) | embedding_layout(self.spec)):
            self.checkpoint.reach(part.name(self.checkpoint), part.shape, bound / max(1.0, part.factor))
        if unused := self.checkpoint.unused():
            shown = ", ".join(unused[:4]) + (", ..." if len(unused) > 4 else "")
            note = f"{len(unused)} tensor(s) of the checkpoint are not used by {self.spec.architecture}: {shown}"
            if note not in self.notes:
                self.notes.append(note)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tensors that the architecture uses."""
        used = parts(encoder_layout(self.spec) | embedding_layout(self.spec))
        return self.checkpoint.digest(p.name(self.checkpoint) for p in used)

    def layout(self, fixed: FixedPoint, *, private: bool) -> dict[str, Tensor]:
        """The tensors that the model owner shares: all, or, where clients hold the tables, those behind them."""
        layout = encoder_layout(self.spec)
        if private:
            width = table_width(self.spec, self.checkpoint, fixed.frac, 2.0**fixed.magnitude)
            layout = embedding_layout(self.spec, width) | layout
        return layout

    def embeddings(self, batch: Batch) -> np.ndarray:
        """Embedding sums (N, C) in float64 of a batch, from the tables in the folder: words, segments, positions."""
        spec, rows = self.spec, self.checkpoint.rows
        c = spec.hidden
        words = rows(WORDS, (spec.vocab, c), batch.ids)
        segments = rows(SEGMENTS, (spec.types, c), batch.segments)
        return np.asarray(words + segments + rows(POSITIONS, (spec.positions, c), batch.positions))
