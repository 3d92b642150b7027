"""One secure inference of every family at BERT_BASE's shape: seconds, online MB, rounds a layer, dealer MB.

    python bench/families.py
    python bench/families.py --families bert,modernbert --tokens 1024 --layers 6 --plans

Every family has 12 layers, hidden 768, 12 heads, 3,072 neurons, and a vocabulary of 30,522. As in their base models,
ModernBERT has 1,152 gated neurons instead, and NomicBERT's 3,072 are gated. The weights are random (normal, 0.02),
embeddings are private, and all three roles run in one process. Each answer is compared with the float64 twin before
anything is timed. The fastest of --repeat runs counts, as other work only adds time. Rounds and bytes of a layer are
those by which plans of three and of six layers differ, on average (ModernBERT's third layer attends to all tokens).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bert import TOLERANCE, largest
from report import record
from safetensors.numpy import save_file

from secformer import SecureModel
from secformer.memory import keep_memory
from secformer.models.data.batch import Batch
from secformer.models.data.parameters import load_weights
from secformer.models.data.shares import GhostTensors
from secformer.models.data.tensors import parts
from secformer.models.families.architecture import Architecture
from secformer.models.families.blocks import Forward
from secformer.models.families.config import read_config
from secformer.models.families.folder import ModelFolder
from secformer.models.families.program import behind_embedding
from secformer.models.families.table import architecture_of
from secformer.models.ranges.profile import measure
from secformer.models.run.local import twin
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.ring import WORD_BITS
from secformer.mpc.session import Session
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.protocols.recipes import FAITHFUL

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


def measured(family: str, folder: Path, texts: Mapping[str, Any], repeat: int) -> dict[str, Any]:
    """One family's model: verified, then timed."""
    profile = measure(ModelFolder(folder), texts)
    expected = twin(folder, texts, profile=profile)
    with SecureModel.from_pretrained(folder, backend="numpy", profile=profile, deadline=3600.0) as model:
        out = model(texts)
        error = largest(out.last_hidden_state, expected.last_hidden_state)
        if not error <= TOLERANCE or out.trusted is None or not out.trusted.all():
            raise SystemExit(f"{family}: off by {error:.3g} from the twin, or marked; nothing is timed")
        seconds = []
        for _ in range(repeat):
            started = time.perf_counter()
            model(texts)
            seconds.append(round(time.perf_counter() - started, 3))
    assert out.cost is not None
    return {"seconds": min(seconds), "seconds_each": seconds, "online_bytes": out.cost.bytes, "rounds": out.cost.rounds,
            "dealer_bytes": out.cost.dealer_bytes, "error_to_twin": error}


def per_layer(folder: Path, texts: Mapping[str, Any]) -> dict[str, int]:
    """Rounds and online bytes of a layer, from plans of two depths."""
    whole = ModelFolder(folder)
    profile, fixed, period = measure(whole, texts), FixedPoint(), 3  # after which layers repeat
    batch = Batch(tuple(whole.tokenizer.rows(texts)))
    counts = []
    for layers in (period, 2 * period):
        architecture = replace(whole.architecture, spec=replace(whole.architecture.spec, layers=layers))
        tensors = GhostTensors(architecture.layout(None))

        def program(s: Session, architecture: Architecture = architecture, tensors: GhostTensors = tensors) -> None:
            forward = Forward(batch, load_weights(s, tensors), FAITHFUL, profile)
            with s.guarding(batch.owners, batch.size):
                behind_embedding(s, architecture, ghost((batch.tokens, architecture.inputs.hidden)), forward)

        def loading(s: Session, tensors: GhostTensors = tensors) -> None:
            load_weights(s, tensors)

        full, weights = PlanRecorder(fixed).record(program), PlanRecorder(fixed).record(loading)
        counts.append((full.rounds - weights.rounds, full.bytes - weights.bytes))
    rounds, size = ((b - a) / period for a, b in zip(*counts, strict=True))
    return {"rounds_per_layer": round(rounds), "bytes_per_layer": round(size)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(FAMILIES), help="names with commas between them")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--plans", action="store_true", help="read plans only, and run nothing on shares")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    keep_memory()
    ids = np.random.default_rng(args.seed).integers(5, VOCAB, (1, args.tokens))
    texts = {"input_ids": ids}
    found: dict[str, dict[str, Any]] = {}
    for family in args.families.split(","):
        print(f"{family} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work) / family
            folder.mkdir()
            checkpoint(folder, family, args.tokens, args.layers, args.seed)
            found[family] = {"layers": args.layers} | per_layer(folder, texts)
            found[family] |= {} if args.plans else measured(family, folder, texts, args.repeat)
        print(family, json.dumps(found[family]), flush=True)
    record(f"families-{args.tokens}", {"tokens": args.tokens, "repeat": args.repeat, "rows": found})


if __name__ == "__main__":
    main()
