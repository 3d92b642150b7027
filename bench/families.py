"""One secure inference of every family at BERT_BASE's shape: seconds, online MB, rounds a layer, dealer MB.

    python bench/families.py
    python bench/families.py --families bert,modernbert --tokens 1024

Every family has 12 layers, hidden 768, 12 heads, 3,072 neurons (1,152 gated ones for ModernBERT and NomicBERT, as in
their base models), and a vocabulary of 30,522. The weights are random (normal, 0.02), embeddings are private, and all
three roles run in one process. Each answer is compared with the float64 twin before anything is timed. Families run in
turn, --repeat times, so that they meet the same machine; medians are reported. Rounds and bytes of a layer are those
that one layer more costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from bert import TOLERANCE, largest
from report import record
from safetensors.numpy import save_file

from secformer import SecureModel
from secformer.memory import keep_memory
from secformer.models.data.tensors import parts
from secformer.models.families.config import read_config
from secformer.models.families.folder import ModelFolder
from secformer.models.families.table import architecture_of
from secformer.models.ranges.profile import measure
from secformer.models.run.local import twin
from secformer.mpc.ring import WORD_BITS

VOCAB, LAYERS, HIDDEN, HEADS, INNER, GATED, SEGMENTS = 30522, 12, 768, 12, 3072, 1152, 2
BERT = {"vocab_size": VOCAB, "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "num_attention_heads": HEADS,
        "intermediate_size": INNER, "pad_token_id": 0, "type_vocab_size": SEGMENTS}
SOLE = {"type_vocab_size": 1, "pad_token_id": 1}
# what each family's config says; the class is its encoder
FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "bert": ("BertModel", BERT),
    "distilbert": ("DistilBertModel", {"vocab_size": VOCAB, "n_layers": LAYERS, "dim": HIDDEN, "n_heads": HEADS,
                                       "hidden_dim": INNER, "pad_token_id": 0}),
    "roberta": ("RobertaModel", BERT | SOLE),
    "electra": ("ElectraModel", BERT | {"embedding_size": HIDDEN}),
    "albert": ("AlbertModel", BERT | {"embedding_size": 128, "hidden_act": "gelu_new"}),
    "mpnet": ("MPNetModel", BERT | {"pad_token_id": 1}),
    "deberta-v2": ("DebertaV2Model", BERT | {
        "type_vocab_size": 0, "relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm",
        "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
        "max_relative_positions": -1, "layer_norm_eps": 1e-7}),
    "modernbert": ("ModernBertModel", BERT | {"intermediate_size": GATED, "pad_token_id": 0, "type_vocab_size": 0}),
    "nomic_bert": ("NomicBertModel", BERT),
}


def checkpoint(folder: Path, family: str, tokens: int, layers: int, seed: int) -> None:
    """Writes a randomly initialised encoder of a family in float16."""
    name, entries = FAMILIES[family]
    depth = "n_layers" if "n_layers" in entries else "num_hidden_layers"
    facts = {**entries, "model_type": family, "architectures": [name], depth: layers,
             "max_position_embeddings": max(512, tokens) + 2}
    (folder / "config.json").write_text(json.dumps(facts))
    rng = np.random.default_rng(seed)
    tensors = {}
    for part in parts(architecture_of(read_config(folder)).layout(WORD_BITS)):
        gain = len(part.shape) == 1 and part.names[0].endswith("weight")
        drawn = np.ones(part.shape) if gain else 0.02 * rng.standard_normal(part.shape, dtype=np.float32)
        tensors[part.names[0]] = drawn.astype(np.float16)
    save_file(tensors, folder / "model.safetensors")


class Row:
    """One family: its model, verified, and what its runs took."""

    def __init__(self, family: str, folder: Path, texts: Mapping[str, Any]):
        self.texts, self.seconds = texts, []
        profile = measure(ModelFolder(folder), texts)
        self.model = SecureModel.from_pretrained(folder, backend="numpy", profile=profile)
        out, expected = self.model(texts), twin(folder, texts, profile=profile)
        self.error = largest(out.last_hidden_state, expected.last_hidden_state)
        if not self.error <= TOLERANCE or out.trusted is None or not out.trusted.all():
            raise SystemExit(f"{family}: off by {self.error:.3g} from the twin, or marked; nothing is timed")
        assert out.cost is not None
        self.cost = out.cost

    def run(self) -> None:
        started = time.perf_counter()
        self.model(self.texts)
        self.seconds.append(time.perf_counter() - started)

    def facts(self, layers: int) -> dict[str, Any]:
        cost = self.cost
        return {"seconds": round(statistics.median(self.seconds), 3), "online_bytes": cost.bytes,
                "rounds": cost.rounds, "dealer_bytes": cost.dealer_bytes, "error_to_twin": self.error,
                "layers": layers}


def per_layer(family: str, args: argparse.Namespace, texts: Mapping[str, Any], at: Path) -> dict[str, int]:
    """Rounds and online bytes of the period after which layers repeat, by models of two depths."""
    period = 3  # ModernBERT's third layer attends to all tokens
    costs = []
    for layers in (period, 2 * period):
        folder = at / f"{family}-{layers}"
        folder.mkdir()
        checkpoint(folder, family, args.tokens, layers, args.seed)
        with SecureModel.from_pretrained(folder, backend="numpy", profile=measure(ModelFolder(folder), texts),
                                         embedding="client") as model:
            cost = model(texts).cost
            assert cost is not None
            costs.append(cost)
    return {"rounds_per_layer": round((costs[1].rounds - costs[0].rounds) / period),
            "bytes_per_layer": round((costs[1].bytes - costs[0].bytes) / period)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(FAMILIES), help="names with commas between them")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    keep_memory()
    ids = np.random.default_rng(args.seed).integers(5, VOCAB, (1, args.tokens))
    texts = {"input_ids": ids}
    rows: dict[str, Row] = {}
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as work:
        at = Path(work)
        for family in args.families.split(","):
            print(f"{family} ...", file=sys.stderr, flush=True)
            folder = at / family
            folder.mkdir()
            checkpoint(folder, family, args.tokens, args.layers, args.seed)
            rows[family] = Row(family, folder, texts)
            found[family] = per_layer(family, args, texts, at)
        for _ in range(args.repeat):
            for row in rows.values():
                row.run()
    for family, row in rows.items():
        found[family] = row.facts(args.layers) | found[family]
        print(family, json.dumps(found[family]))
    record(f"families-{args.tokens}", {"tokens": args.tokens, "repeat": args.repeat, "rows": found})


if __name__ == "__main__":
    main()
