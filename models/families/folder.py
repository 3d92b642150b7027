"""A model folder, opened and proved usable before anything is shared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from secformer.models.data.batch import Batch
from secformer.models.data.checkpoint import Checkpoint, PathLike
from secformer.models.data.tensors import TABLE, Layout, parts, table_width, verify
from secformer.models.data.tokenizer import Tokenizer
from secformer.models.data.tokenizer_files import has_tokenizer
from secformer.models.families.config import read_config
from secformer.models.families.decoder import Decoder
from secformer.models.families.heads import Head
from secformer.models.families.table import architecture_of
from secformer.mpc.errors import ModelError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.ring import WORD_BITS


class ModelFolder:
    """The architecture, tokenizer and tensors of a local Hugging Face folder.

    Nothing is downloaded, and no code in the folder is run. Raises ModelError for a folder that cannot be used.
    """

    def __init__(self, path: PathLike):
        if not isinstance(path, str | os.PathLike):
            raise ModelError(f"a model must be a folder's path or a loaded SecureModel, got {type(path).__name__}")
        self.path = Path(path)
        if not self.path.is_dir():
            raise ModelError(f"{self.path} is not a folder; give a local folder with config.json, model.safetensors "
                             f"and tokenizer files (nothing is downloaded)")
        config = read_config(self.path)
        stated = architecture_of(config)
        self.checkpoint = Checkpoint(self.path, prefix=stated.prefix, buffers=stated.buffers)
        self.architecture, self.notes = stated.found_in(self.checkpoint)
        if stated.spec.labels and config.get("id2label") is None and config.get("num_labels") is None:
            assumed = (f"config.json has neither id2label nor num_labels, so transformers' default of "
                       f"{len(stated.spec.labels)} labels was taken; add id2label")
            self.checkpoint.assumed = dict.fromkeys(self.architecture.head_tensors, assumed)
        self.tokenizer = Tokenizer(self.path, self.architecture.inputs)

    def verify(self, fixed: FixedPoint) -> None:
        """Reads every tensor once, and compares the tokenizer with the word table. Adds notes on tensors that the
        architecture does not use, and on tokens that it has no words for.

        Raises ModelError where a tensor is missing, has another shape or dtype, or is not finite, or the tokenizer is
        another model's; RangeError where a value is not below 2^magnitude.
        """
        verify(self.architecture.layout(WORD_BITS), self.checkpoint, 2.0**fixed.magnitude)
        found = self.tokenizer.compare(masks=self.architecture.head in (Head.MASKED, Head.PRETRAINING)) if (
            has_tokenizer(self.path)) else []
        self.notes += [note for note in found if note not in self.notes]
        if unused := self.checkpoint.unused():
            shown = ", ".join(unused[:4]) + (", ..." if len(unused) > 4 else "")
            user = self.architecture.spec.architecture
            note = f"{len(unused)} tensor(s) of the checkpoint are not used by {user}: {shown}"
            if note not in self.notes:
                self.notes.append(note)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the stored tensors that the architecture uses, and of a public prefix."""
        stored = self.checkpoint.digest(name for p in parts(self.architecture.layout(WORD_BITS))
                                        if not self.checkpoint.computed(name := p.name(self.checkpoint)))
        prefix = self.architecture.spec.prefix if isinstance(self.architecture, Decoder) else ()
        return hashlib.sha256(f"{stored}:{prefix}".encode()).hexdigest() if prefix else stored

    def begin(self, decoder: Decoder, tensors: Mapping[str, np.ndarray]) -> None:
        """Takes a decoder behind a public prefix, whose keys and values are these tensors."""
        self.architecture = decoder
        self.tokenizer.inputs = decoder.inputs
        self.checkpoint.hold(tensors)
        self.__dict__.pop("digest", None)

    def layout(self, fixed: FixedPoint, *, private: bool) -> Layout:
        """The tensors that the owner shares: with the tables where look-ups are `private`, else without them."""
        if not private:
            return self.architecture.layout(None)
        table = self.architecture.tables()[TABLE]
        return self.architecture.layout(table_width(table, self.checkpoint, fixed.frac, 2.0**fixed.magnitude))

    def embeddings(self, batch: Batch) -> np.ndarray:
        """The embedding sums (N, C) of a batch, in float64, from the tables in the folder."""
        return np.asarray(self.architecture.embedding_sums(self.checkpoint.rows, batch))
