"""Tiny random BERT folders for tests, written without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("a", "the", "cat", "dog", "sat", "ran", "on", "mat", "good", "bad", "film", "not", "very", "is", "was", "it",
         "##s", "##ing", "##ly", "!", "?", ".", ",", "b", "c", "d", "e", "i", "o", "t", "##a", "##e", "##o", "##t")
VOCAB = (*SPECIAL, *WORDS)
PROJECT = Path(__file__).resolve().parents[2]
MINILM = PROJECT / "../shared/models/all-MiniLM-L6-v2"

SIZES: dict[str, Any] = {
    "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20,
    "max_position_embeddings": 32, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
}


def config(architecture: str = "BertModel", **changes: Any) -> dict[str, Any]:
    """The entries of a config.json; `labels=n` names n labels."""
    labels = changes.pop("labels", 2 if architecture == "BertForQuestionAnswering" else 3)
    entries = {"model_type": "bert", "architectures": [architecture], "hidden_act": "gelu", "vocab_size": len(VOCAB),
               "pad_token_id": 0, "id2label": {str(i): f"label {i}" for i in range(labels)},
               "label2id": {f"label {i}": i for i in range(labels)}, **SIZES}
    return entries | changes


def shapes(entries: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names (as `BertModel` saves them) and shapes of the tensors of such a config."""
    c, i, architecture = entries["hidden_size"], entries["intermediate_size"], entries["architectures"][0]
    linears = {}
    for n in range(entries["num_hidden_layers"]):
        layer = f"encoder.layer.{n}"
        linears |= {f"{layer}.attention.self.{k}": (c, c) for k in ("query", "key", "value")}
        linears |= {f"{layer}.attention.output.dense": (c, c), f"{layer}.intermediate.dense": (i, c),
                    f"{layer}.output.dense": (c, i)}
    norms = ["embeddings.LayerNorm"]
    for n in range(entries["num_hidden_layers"]):
        norms += [f"encoder.layer.{n}.attention.output.LayerNorm", f"encoder.layer.{n}.output.LayerNorm"]
    if architecture in ("BertModel", "BertForSequenceClassification", "BertForNextSentencePrediction",
                        "BertForPreTraining"):
        linears["pooler.dense"] = (c, c)
    if architecture in ("BertForSequenceClassification", "BertForTokenClassification"):
        linears["classifier"] = (len(entries["id2label"]), c)
    if architecture == "BertForQuestionAnswering":
        linears["qa_outputs"] = (2, c)
    if architecture in ("BertForNextSentencePrediction", "BertForPreTraining"):
        linears["cls.seq_relationship"] = (2, c)
    out: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (entries["vocab_size"], c),
        "embeddings.token_type_embeddings.weight": (entries["type_vocab_size"], c),
        "embeddings.position_embeddings.weight": (entries["max_position_embeddings"], c),
    }
    if architecture in ("BertForMaskedLM", "BertForPreTraining"):
        linears["cls.predictions.transform.dense"] = (c, c)
        norms.append("cls.predictions.transform.LayerNorm")
        out["cls.predictions.bias"] = (entries["vocab_size"],)
    for name, shape in linears.items():
        out |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in norms:
        out |= {f"{name}.weight": (c,), f"{name}.bias": (c,)}
    return out


def tensors(entries: Mapping[str, Any], seed: int = 0, scale: float = 0.3) -> dict[str, np.ndarray]:
    """Random float32 tensors of such a config; LayerNorm weights near 1."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(0.0, scale, shape) + (1.0 if name.endswith("LayerNorm.weight") else 0.0)).astype(np.float32)
        for name, shape in shapes(entries).items()
    }


def write_checkpoint(folder: Path, architecture: str = "BertModel", *, seed: int = 0, scale: float = 0.3,
                     prefix: str = "", weights: Mapping[str, np.ndarray] | None = None, tokenizer: bool = True,
                     **changes: Any) -> Path:
    """Writes a folder as save_pretrained would: config.json, model.safetensors, a lower-case WordPiece tokenizer.

    `prefix` goes before the names of `BertModel`'s tensors (heads keep theirs); `changes` go into the config.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    entries = config(architecture, **changes)
    (folder / "config.json").write_text(json.dumps(entries), "utf-8")
    found = tensors(entries, seed, scale) if weights is None else weights
    head = ("classifier", "qa_outputs", "cls.")
    save_file({(n if n.startswith(head) else prefix + n): np.ascontiguousarray(v) for n, v in found.items()},
              str(folder / "model.safetensors"))
    if tokenizer:
        write_tokenizer(folder, entries["max_position_embeddings"])
    return folder


def write_tokenizer(folder: Path, longest: int, pad: int = 0) -> None:
    """tokenizer.json and its config, for VOCAB with [PAD] at the id `pad`."""
    from tokenizers import BertWordPieceTokenizer

    words = list(VOCAB)
    words[0], words[pad] = words[pad], words[0]
    backend = BertWordPieceTokenizer({word: i for i, word in enumerate(words)}, lowercase=True)
    backend.save(str(folder / "tokenizer.json"))
    facts = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": longest,
             **{f"{w.strip('[]').lower()}_token": w for w in SPECIAL}}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts), "utf-8")
