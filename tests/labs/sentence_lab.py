"""Folders of sentence-transformers for tests, and what that library answers: its documented formulas, in float64."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import write_checkpoint

OWNER = "sentence_transformers.models"
WAYS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")  # in the order of joining
KEYS = {way: f"pooling_mode_{way}" for way in WAYS} | {
    "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens", "mean": "pooling_mode_mean_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens"}
FUNCTIONS = {"linear.Identity": lambda x: x, "activation.Tanh": np.tanh, "activation.ReLU": lambda x: np.maximum(x, 0),
             "activation.GELU": lambda x: x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
             "activation.SiLU": lambda x: x / (1 + np.exp(-x))}


def put(file: Path, facts: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(facts), "utf-8")


def write_sentence(folder: Path, ways: Sequence[str] = ("mean",), *, dense: Sequence[tuple[int, str, bool]] = (),
                   unit: bool = True, pooling: Mapping[str, Any] | None = None,
                   settings: Mapping[str, Any] | None = None, limits: Mapping[str, Any] | None = None, seed: int = 0,
                   **changes: Any) -> Path:
    """A BERT with the modules of `add_modules`."""
    return add_modules(write_checkpoint(folder, seed=seed, **changes), ways, dense=dense, unit=unit, pooling=pooling,
                       settings=settings, limits=limits, seed=seed)


def add_modules(folder: Path, ways: Sequence[str] = ("mean",), *, dense: Sequence[tuple[int, str, bool]] = (),
                unit: bool = True, pooling: Mapping[str, Any] | None = None,
                settings: Mapping[str, Any] | None = None, limits: Mapping[str, Any] | None = None,
                seed: int = 0) -> Path:
    """Makes a folder one of sentence-transformers, with these ways of pooling, in the older spelling; `pooling` adds
    to, or changes, the entries.

    dense  (size, class in torch.nn.modules, whether it has a bias) of every dense layer
    """
    from safetensors.numpy import save_file

    kinds = ["Transformer", "Pooling", *["Dense"] * len(dense), *["Normalize"] * unit]
    paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds) if i)]
    put(folder / "modules.json", [{"idx": i, "name": str(i), "path": path, "type": f"{OWNER}.{kind}"}
                                  for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))])
    config = json.loads((folder / "config.json").read_text("utf-8"))
    size = config["hidden_size"] if "hidden_size" in config else config["dim"]
    put(folder / "1_Pooling/config.json", {"word_embedding_dimension": size}
        | {KEYS[way]: way in ways for way in WAYS} | dict(pooling or {}))
    rng, size = np.random.default_rng(seed + 100), size * len(ways)
    for path, (outer, name, bias) in zip(paths[2:], dense, strict=False):
        put(folder / path / "config.json", {"in_features": size, "out_features": outer, "bias": bias,
                                            "activation_function": f"torch.nn.modules.{name}"})
        tensors = {"linear.weight": rng.normal(0, 0.4, (outer, size)), "linear.bias": rng.normal(0, 0.4, outer)}
        save_file({k: v.astype(np.float32) for k, v in tensors.items() if bias or k != "linear.bias"},
                  str(folder / path / "model.safetensors"))
        size = outer
    if settings is not None:
        put(folder / "config_sentence_transformers.json", settings)
    if limits is not None:
        put(folder / "sentence_bert_config.json", limits)
    return folder


def pooled(hidden: np.ndarray, mask: np.ndarray, ways: Sequence[str]) -> np.ndarray:
    """Of one text: hidden (T, C), mask (T,)."""
    m = mask[:, None].astype(float)
    position = np.arange(1.0, len(mask) + 1)[:, None]
    found = {
        "cls": hidden[mask.argmax()],
        "max": np.where(m > 0, hidden, -np.inf).max(0),
        "mean": (hidden * m).sum(0) / m.sum(),
        "mean_sqrt_len_tokens": (hidden * m).sum(0) / math.sqrt(m.sum()),
        "weightedmean": (hidden * m * position).sum(0) / (m * position).sum(),
        "lasttoken": hidden[np.flatnonzero(mask)[-1]],
    }
    return np.concatenate([found[way] for way in ways])


def encoded(folder: Path, texts: Sequence[str], ways: Sequence[str], *, dense: Sequence[tuple[int, str, bool]] = (),
            unit: bool = True, prompt: str = "", skip_prompt: bool = False, limit: int | None = None,
            lower: bool = False) -> np.ndarray:
    """What SentenceTransformer(folder).encode(texts) gives, one text at a time; needs torch."""
    import torch
    from safetensors.numpy import load_file
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModel.from_pretrained(str(folder)).double().eval()
    rows = []
    for text in texts:
        text = prompt + text
        given = tokenizer(text.lower() if lower else text, return_tensors="pt", truncation=True,
                          max_length=limit or tokenizer.model_max_length)
        with torch.no_grad():
            hidden = model(**given).last_hidden_state[0].numpy()
        mask = given["attention_mask"][0].numpy().copy()
        if skip_prompt:
            mask[: len(tokenizer(prompt)["input_ids"]) - 1] = 0  # the last is [SEP]
        x = pooled(hidden, mask, ways)
        for i, (_, name, bias) in enumerate(dense):
            t = load_file(folder / f"{i + 2}_Dense/model.safetensors")
            x = FUNCTIONS[name](t["linear.weight"].astype(float) @ x + (t["linear.bias"] if bias else 0.0))
        rows.append(x / max(np.linalg.norm(x), 1e-12) if unit else x)
    return np.stack(rows)
