"""A family that the package does not know: a two-layer MLP over tokens, as an installed package would bring it.

Classes of a text are read off its first token. C hidden, I neurons, V words, L labels.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from checkpoints import VOCAB, write_tokenizer

from secformer.models.data.batch import Batch
from secformer.models.data.inputs import TokenInputs
from secformer.models.data.tensors import TABLE, Part, Tensor, linear_layout, norm_layout
from secformer.models.families.architecture import Architecture, Rows, Spec
from secformer.models.families.blocks import Forward, layernorm, linear, look_up
from secformer.models.families.config import Config
from secformer.models.families.heads import Head
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.activations import RELU

WORDS = "words.weight"


@dataclass(frozen=True, kw_only=True)
class ToySpec(Spec):
    vocab: int
    hidden: int
    neurons: int
    longest: int


class Toy(Architecture):
    model_type = "toy_mlp"
    classes: ClassVar = {"ToyForSequenceClassification": Head.SEQUENCE, "ToyModel": Head.ENCODER}
    spec_type = ToySpec
    prefix = "toy."

    spec: ToySpec

    @classmethod
    def from_config(cls, config: Config, architecture: str) -> Self:
        head = cls.classes[architecture]
        labels = config.labels() if head is Head.SEQUENCE else ()
        return cls(ToySpec(architecture=architecture, labels=labels, problem=config.problem(head, len(labels)),
                           vocab=config.size("vocab_size"), hidden=config.size("hidden_size"),
                           neurons=config.size("neurons"), longest=config.size("longest")))

    def tables(self) -> dict[str, Tensor]:
        return {TABLE: Tensor((Part((WORDS,), (self.spec.vocab, self.spec.hidden)),), 0, True)}

    def weights(self) -> dict[str, Tensor]:
        c, i = self.spec.hidden, self.spec.neurons
        head = linear_layout("head", "classifier", c, len(self.spec.labels)) if self.head is Head.SEQUENCE else {}
        return (linear_layout("first", "first", c, i) | linear_layout("second", "second", i, c)
                | norm_layout("norm", "norm", c) | head)

    @property
    def inputs(self) -> TokenInputs:
        return TokenInputs(self.spec.vocab, 0, self.spec.longest, self.spec.hidden)

    def embedding_sums(self, rows: Rows, batch: Batch) -> Any:
        return rows(WORDS, (self.spec.vocab, self.spec.hidden), batch.ids)

    def embed(self, s: Session, rows: Share, f: Forward) -> Share:
        return look_up(s, rows, f)

    def answer(self, s: Session, x: Share, f: Forward) -> dict[str, Share]:
        with s.scope("linear"):
            inner = linear(s, x, f, "first")
        with s.scope("gelu"):
            inner = f.recipe.gelu(s, inner, f.at("gelu"))
        with s.scope("linear"):
            x = x + linear(s, inner, f, "second")
        x = layernorm(s, f.recipe.of(RELU)(s, x, f.at("relu")), f, "norm", 1e-5)
        logits = {"logits": linear(s, x[f.batch.starts], f, "head")} if self.head is Head.SEQUENCE else {}
        return {"last_hidden_state": x} | logits

    @property
    def sites(self) -> tuple[str, ...]:
        return "gelu", "relu", "norm"

    @property
    def results(self) -> Mapping[str, bool]:
        return {"last_hidden_state": True} | ({"logits": False} if self.head is Head.SEQUENCE else {})


def write_toy(folder: Path, architecture: str = "ToyForSequenceClassification", *, seed: int = 0) -> Path:
    """A checkpoint of the family, with the tokenizer of the tests."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    c, i = 11, 7
    config = {"model_type": Toy.model_type, "architectures": [architecture], "vocab_size": len(VOCAB), "hidden_size": c,
              "neurons": i, "longest": 24, "id2label": {"0": "no", "1": "yes", "2": "both"}}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    rng, shapes = np.random.default_rng(seed), {
        "toy.words.weight": (len(VOCAB), c), "toy.first.weight": (i, c), "toy.first.bias": (i,),
        "toy.second.weight": (c, i), "toy.second.bias": (c,), "toy.norm.weight": (c,), "toy.norm.bias": (c,)}
    if architecture != "ToyModel":
        shapes |= {"classifier.weight": (3, c), "classifier.bias": (3,)}
    save_file({name: rng.normal(0.0, 0.6, shape).astype(np.float32) for name, shape in shapes.items()},
              str(folder / "model.safetensors"))
    write_tokenizer(folder, 24)
    return folder


def exact(folder: Path, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states (T, C) and logits (L,) of one text, written out by hand in float64."""
    from math import erf

    from safetensors.numpy import load_file

    t = {name.removeprefix("toy."): values.astype(np.float64)
         for name, values in load_file(folder / "model.safetensors").items()}
    x = t["words.weight"][ids]
    y = x @ t["first.weight"].T + t["first.bias"]
    y = y / 2 * (1 + np.vectorize(erf)(y / np.sqrt(2)))
    x = np.maximum(y @ t["second.weight"].T + t["second.bias"] + x, 0.0)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * t["norm.weight"] + t["norm.bias"]
    return x, x[0] @ t["classifier.weight"].T + t["classifier.bias"] if "classifier.weight" in t else np.zeros(0)


def installed(site: Path) -> Path:
    """Writes what pip leaves of an installed package that brings this family; put the folder on the path."""
    facts = site / "toy_family-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-family\nVersion: 1.0\n", "utf-8")
    (facts / "entry_points.txt").write_text(f"[secformer.families]\n{Toy.model_type} = toy_family:Toy\n", "utf-8")
    labs = Path(sys.modules[__name__].__file__ or "").parent
    (site / "toy_family.pth").write_text(f"{labs}\n", "utf-8")
    return site
