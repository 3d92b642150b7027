"""Folders of sentence-transformers: an encoder, and the modules that make one embedding of each text's hidden states.

Pooling and dense layers run on shares, so a client may ask for the sentence embedding alone. Only the last step, to
unit length, is the client's own.

B texts, T tokens of the longest, N packed tokens, C hidden, D entries of a sentence embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from secformer.models.data.batch import Batch
from secformer.models.data.checkpoint import Checkpoint
from secformer.models.data.inputs import TokenInputs
from secformer.models.data.tensors import Tensor, matrix, vector
from secformer.models.data.tokenizer import Tokenizer
from secformer.models.families.activations import activating, activation
from secformer.models.families.architecture import SENTENCE, Architecture, Rows
from secformer.models.families.blocks import Forward, linear
from secformer.models.families.config import Config
from secformer.models.families.heads import Head
from secformer.models.families.modules import MODULES, Modules
from secformer.models.families.pooling import summed, tokens
from secformer.mpc.errors import ModelError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.pooling import MAXIMUM

PLACE = "sentence"  # where sites and scopes of the modules are


@dataclass(frozen=True)
class SentenceModel(Architecture):
    """An encoder with the modules of its folder. It has the encoder's results, and SENTENCE (B, D)."""

    inner: Architecture
    modules: Modules

    @classmethod
    def around(cls, inner: Architecture, modules: Modules) -> Self:
        """The encoder `inner` with modules. Raises ModelError where the modules do not fit its hidden states."""
        size = inner.hidden_size * len(modules.pooling)
        for layer in modules.dense:
            if layer.inner != size:
                raise ModelError(f"{layer.path} takes {layer.inner} numbers, but the module before it gives {size}; "
                                 f"copy the folder again")
            size = layer.outer
        return cls(inner.spec, inner, modules)

    @classmethod
    def from_config(cls, config: Config, architecture: str) -> Self:
        raise ModelError(f"{config.file}: the modules of a folder stand in {MODULES}, not in its config")

    def facts(self) -> dict[str, Any]:
        return self.inner.facts() | {PLACE: asdict(self.modules)}

    def found_in(self, checkpoint: Checkpoint) -> tuple[Architecture, list[str]]:  # type: ignore[override]
        inner, notes = self.inner.found_in(checkpoint)
        for layer in self.modules.dense:
            checkpoint.include(layer.path)
        modules = self.modules
        if modules.prompt and not modules.include_prompt:
            tokenizer = Tokenizer(checkpoint.folder, self.inputs)
            modules = replace(modules, skip=tokenizer.prompt_tokens)
            if modules.skip + 1 >= self.inputs.longest:
                raise ModelError(f"{checkpoint.folder}: the prompt takes {modules.skip} tokens of the "
                                 f"{self.inputs.longest} that a text may have, and pooling leaves them out, so nothing "
                                 f"is left; shorten the prompt or raise max_seq_length")
        return self.around(inner, modules), notes

    # ---- what the encoder says -----------------------------------------------------------------------------------

    @property
    def model_type(self) -> str:  # type: ignore[override]
        return self.inner.model_type

    @property
    def classes(self) -> Mapping[str, Head]:  # type: ignore[override]
        return self.inner.classes

    @property
    def prefix(self) -> str:  # type: ignore[override]
        return self.inner.prefix

    @property
    def buffers(self) -> Sequence[str]:  # type: ignore[override]
        return self.inner.buffers

    @property
    def hidden_size(self) -> int:
        return self.inner.hidden_size

    def tables(self) -> dict[str, Tensor]:
        return self.inner.tables()

    def embedding_sums(self, rows: Rows, batch: Batch) -> Any:
        return self.inner.embedding_sums(rows, batch)

    def embed(self, s: Session, rows: Share, f: Forward) -> Share:
        return self.inner.embed(s, rows, f)

    @property
    def hidden_sites(self) -> tuple[str, ...]:
        return self.inner.hidden_sites

    @property
    def sizes(self) -> Mapping[str, int]:
        return self.inner.sizes

    def classifier(self, labels: tuple[str, ...]) -> Architecture:  # type: ignore[override]
        """The encoder with a text classifier, without the modules.

        Raises ModelError where the folder changes texts before they are tokenised, which a classifier's would not.
        """
        if self.modules.prompt or self.modules.lower:
            raise ModelError(f"this folder of sentence-transformers puts a prompt before its texts, or puts them into "
                             f"lower case; a classifier that is made of it would not. Train a copy of the folder "
                             f"without {MODULES}")
        return self.inner.classifier(labels)

    # ---- what the modules add ------------------------------------------------------------------------------------

    @cached_property
    def inputs(self) -> TokenInputs:
        most = self.inner.inputs.longest
        return replace(self.inner.inputs, longest=min(most, self.modules.limit or most), prompt=self.modules.prompt,
                       lower=self.modules.lower)

    def weights(self) -> dict[str, Tensor]:
        found = self.inner.weights()
        for i, layer in enumerate(self.modules.dense):
            found[f"{PLACE}.{i}.weight"] = matrix(f"{layer.path}/linear.weight", layer.inner, layer.outer)
            if layer.bias:
                found[f"{PLACE}.{i}.bias"] = vector(f"{layer.path}/linear.bias", layer.outer)
        return found

    @property
    def sites(self) -> tuple[str, ...]:
        pooled = (f"{PLACE}.{MAXIMUM.name}",) * ("max" in self.modules.pooling)
        dense = (f"{PLACE}.{i}.{layer.act}" for i, layer in enumerate(self.modules.dense) if layer.act)
        return (*self.inner.sites, *pooled, *dense)

    @property
    def results(self) -> Mapping[str, bool]:
        return {**self.inner.results, SENTENCE: False}

    @property
    def fillable(self) -> bool:
        return self.inner.fillable

    @property
    def embedding_size(self) -> int:
        dense = self.modules.dense
        return dense[-1].outer if dense else self.hidden_size * len(self.modules.pooling)

    @property
    def unit_embeddings(self) -> bool:
        return self.modules.unit

    def answer(self, s: Session, x: Share, f: Forward) -> dict[str, Share]:
        out = self.inner.answer(s, x, f)
        with s.scope(PLACE):
            (hidden,) = s.settle(out["last_hidden_state"])  # once, for pooling and for the client
            x = self.pool(s, hidden, f)
            for i, layer in enumerate(self.modules.dense):
                magnitude = activating(s, f, f"{PLACE}.{i}", layer.act) if layer.act else None
                with s.scope("linear"):
                    x = linear(s, x, f, f"{PLACE}.{i}", bias=layer.bias, magnitude=magnitude)
                if layer.act:
                    x = activation(s, x, f, f"{PLACE}.{i}", layer.act)
        return out | {"last_hidden_state": hidden, SENTENCE: x}

    def pool(self, s: Session, x: Share, f: Forward) -> Share:
        """Hidden states (N, C), settled, to (B, C) for each way of pooling, side by side. All but the maximum is local:
        a sum of tokens with public weights, exact, and a public factor."""
        batch, ways = f.batch, []
        kept = batch.mask & (np.arange(batch.longest) >= self.modules.skip)  # (B, T): what is pooled
        for way in self.modules.pooling:
            if way == "max":
                first = kept.argmax(axis=1)[:, None]  # a token that is pooled stands for each that is not
                steps = np.where(kept, np.arange(batch.longest), first) + batch.starts[:, None]
                with s.scope(MAXIMUM.name):
                    ways.append(f.recipe.of(MAXIMUM)(s, tokens(x, batch, steps), f.at(f"{PLACE}.{MAXIMUM.name}")))
            else:
                ways.append(summed(s, x, batch, way, kept))
        return s.concatenate(ways, axis=-1) if len(ways) > 1 else ways[0]
