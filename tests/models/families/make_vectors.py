"""Writes tests/models/families/vectors/*.npz: tiny random BERTs and what transformers' own models answer, in float64.

Needs torch; the tests that read the vectors do not. Run it as: python tests/models/families/make_vectors.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "labs"))

from checkpoints import config, tensors, write_checkpoint

HERE = Path(__file__).resolve().parent / "vectors"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "encoder": ("BertModel", {}),
    "encoder_odd": ("BertModel", {"hidden_size": 7, "num_attention_heads": 1, "num_hidden_layers": 1,
                                  "intermediate_size": 5, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "sequence": ("BertForSequenceClassification", {"num_attention_heads": 2}),
    "regression": ("BertForSequenceClassification", {"labels": 1, "num_hidden_layers": 1}),
    "token": ("BertForTokenClassification", {"labels": 4, "hidden_size": 15}),
    "question": ("BertForQuestionAnswering", {"num_hidden_layers": 3}),
    "masked": ("BertForMaskedLM", {"intermediate_size": 11}),
    "next": ("BertForNextSentencePrediction", {"hidden_size": 9, "hidden_act": "relu"}),
    "pretraining": ("BertForPreTraining", {"intermediate_size": 7, "hidden_act": "gelu_new"}),
    "silu": ("BertForMaskedLM", {"hidden_act": "silu", "num_hidden_layers": 3}),
    "quick_gelu": ("BertModel", {"hidden_act": "quick_gelu", "intermediate_size": 13}),
}
IDS = np.array([[2, 5, 7, 9, 3, 6, 8, 3], [2, 13, 3, 0, 0, 0, 0, 0], [2, 16, 15, 3, 20, 3, 0, 0]])
MASK = np.array([[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1, 0, 0]])
KINDS = np.array([[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]])
RESULTS = ("last_hidden_state", "pooler_output", "logits", "start_logits", "end_logits", "prediction_logits",
           "seq_relationship_logits")


def prefix(architecture: str) -> str:
    return "" if architecture == "BertModel" else "bert."


def answers(folder: Path, architecture: str, ids: np.ndarray, mask: np.ndarray, kinds: np.ndarray) -> dict[str, Any]:
    """What transformers' model of a folder says, in float64."""
    import torch
    import transformers

    model = getattr(transformers, architecture).from_pretrained(str(folder)).double().eval()
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
    with torch.no_grad():
        out = model(**{k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in given.items()})
    return {name: out[name].numpy() for name in RESULTS if name in out}


def main() -> None:
    HERE.mkdir(exist_ok=True)
    for seed, (name, (architecture, changes)) in enumerate(CASES.items()):
        entries = config(architecture, **changes)
        kinds = KINDS * (entries["type_vocab_size"] > 1)
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder), architecture, seed=seed, prefix=prefix(architecture), tokenizer=False,
                             **changes)
            found = answers(Path(folder), architecture, IDS, MASK, kinds)
        np.savez_compressed(
            HERE / f"{name}.npz", config=np.array(json.dumps(entries)), input_ids=IDS, attention_mask=MASK,
            token_type_ids=kinds, **{f"weight:{k}": v for k, v in tensors(entries, seed).items()},
            **{f"answer:{k}": v for k, v in found.items()},
        )


if __name__ == "__main__":
    main()
