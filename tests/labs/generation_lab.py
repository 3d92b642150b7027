"""Tiny decoders of every family that text is generated with, ranges that they share, and texts that follow a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from families_lab import save
from mpc_lab import SEEDS, Sent, tapped
from text_lab import WORDS, write_byte_tokenizer

from secformer.models.data.batch import Batch
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import RangeProfile, measure_rows
from secformer.models.run.decoding import Decoding, Step, Turn, new_tokens
from secformer.models.run.local import SecureModel
from secformer.models.run.options import Settings
from secformer.models.run.prefix import begin
from secformer.mpc.meter import Cost
from secformer.mpc.simulate import World
from secformer.protocols.ranges import Range

CONTEXT = 60
SIZES: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
    "intermediate_size": 12, "num_hidden_layers": 2, "max_position_embeddings": CONTEXT, "pad_token_id": 2,
    "bos_token_id": 1, "eos_token_id": 0}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", SIZES | {"tie_word_embeddings": True}),
    "mistral": ("MistralForCausalLM", SIZES | {"sliding_window": 4, "tie_word_embeddings": False}),
    "qwen2": ("Qwen2ForCausalLM", SIZES | {"tie_word_embeddings": False}),
    "qwen3": ("Qwen3ForCausalLM", SIZES | {"tie_word_embeddings": True}),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": WORDS, "n_embd": 15, "n_head": 3, "n_layer": 2, "n_inner": 11,
                                 "n_positions": CONTEXT, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 0}),
}
IDS = np.random.default_rng(5).integers(3, WORDS, 17).tolist()
MEASURED = np.random.default_rng(6).integers(3, WORDS, (6, 24))


def decoder_folder(folder: Path, family: str, **entries: Any) -> Path:
    """A checkpoint of a family, with a byte tokenizer that puts nothing around a text."""
    name, own = FAMILIES[family]
    return save(folder, name, tokenizer=lambda path, _: write_byte_tokenizer(path, CONTEXT, template=None),
                **own | entries)


def ranges(path: Path, prefix: Sequence[int] = (), *texts: Sequence[int]) -> RangeProfile:
    """Ranges of random texts, and of these, rounded outwards to powers of two: layers share what is fitted for them."""
    folder = ModelFolder(path)
    begin(folder, tuple(prefix))
    rows = [row for ids in (*MEASURED, *texts) for row in new_tokens(ids).rows]
    found, kinds = measure_rows(folder, rows), dict[tuple[str, str], list[Range]]()
    for site, quantities in found.sites.items():
        for name, r in quantities.items():
            kinds.setdefault((site.split(".", 2)[-1], name), []).append(r)
    wide = {key: Range(outwards(min(r.low for r in rs), False), outwards(max(r.high for r in rs), True))
            for key, rs in kinds.items()}
    return replace(found, sites={site: {name: wide[site.split(".", 2)[-1], name] for name in quantities}
                                 for site, quantities in found.sites.items()})


def outwards(value: float, up: bool) -> float:
    """The nearest power of two that is not below, or with `up` not above, the value."""
    if value == 0.0:
        return 0.0
    exponent = math.log2(abs(value))
    return math.copysign(2.0 ** (math.ceil(exponent) if up == (value > 0.0) else math.floor(exponent)), value)


def secure(path: Path, profile: RangeProfile, logs: tuple[list[Sent], list[Sent]] | None = None,
           **settings: Any) -> SecureModel:
    """A provisioned model on shares; `logs` get what its parties send."""
    chosen = Settings(**{"public_prefix": None, **settings})
    model = SecureModel(ModelFolder(path), "auto", profile, chosen, "numpy")
    if logs is not None:
        model.world = World(backend="numpy", fixed=chosen.fixed, unsafe_seeds=SEEDS, connect=tapped(logs))
    model.provision()
    return model


def walked(text: Decoding, ids: Sequence[int], *sizes: int) -> np.ndarray:
    """The logits of all tokens behind those that the text has, in steps of these sizes."""
    found = []
    for size in sizes:
        part = list(ids[text.length : text.length + size])
        found.append(text.take(part, last=len(part)).logits)
    return np.concatenate(found)


class Scripted(Decoding):
    """A text whose next token is told by a script, by position: the logit of that token is 9, all others are 0."""

    def __init__(self, script: Sequence[int], *, prefix: tuple[int, ...] = (), longest: int = CONTEXT,
                 breaches: tuple[str, ...] = (), fails_at: int = -1):
        spec = SimpleNamespace(prefix=prefix, longest=longest)
        decoder: Any = SimpleNamespace(spec=spec)
        super().__init__(decoder)
        self.script, self.breaches, self.fails_at = script, breaches, fails_at
        self.turns: list[Turn] = []
        self.given: list[list[int]] = []

    def _ask(self, batch: Batch, turn: Turn) -> Step:
        if len(self.turns) == self.fails_at:
            raise ConnectionError("a party is gone")
        self.turns.append(turn)
        self.given.append(batch.ids.tolist())
        logits = np.zeros((turn.last, WORDS))
        for row, position in zip(logits, turn.positions[-turn.last :], strict=True):
            row[self.script[position + 1] if position + 1 < len(self.script) else 7] = 9.0
        return Step(logits, self.breaches, Cost(rounds=1))
