"""BERT's cost: seconds, bytes, rounds, dealer bytes and memory of one secure inference, verified before it is timed.

    python bench/bert.py --shape base --tokens 128 --recipe faithful

The weights are drawn like an untrained BERT's (normal, 0.02; no checkpoint of this size comes with the project) with
the full vocabulary, private embeddings and all three roles in this process. The answer is compared with the float64
twin of the same recipe; only then are the figures recorded.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from report import peak_memory, record
from safetensors.numpy import save_file

from secformer import SecureModel
from secformer.models.pipeline import plain_bert, twin
from secformer.models.profile import RangeProfile
from secformer.mpc.meter import Cost

SHAPES = {
    "tiny": (2, 128, 2),
    "mini": (6, 384, 12),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}
VOCAB, POSITIONS, TYPES = 30522, 512, 2
TOLERANCE = 0.02  # of last_hidden_state, whose entries are of the order of 1


def checkpoint(folder: Path, layers: int, hidden: int, heads: int, seed: int) -> None:
    """Writes a randomly initialised BertModel in float16."""
    rng = np.random.default_rng(seed)
    inner = 4 * hidden
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "vocab_size": VOCAB, "max_position_embeddings": POSITIONS, "type_vocab_size": TYPES,
        "layer_norm_eps": 1e-12, "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(5, VOCAB))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))

    def normal(*shape: int) -> np.ndarray:
        return (0.02 * rng.standard_normal(shape, dtype=np.float32)).astype(np.float16)

    tensors: dict[str, np.ndarray] = {}

    def dense(name: str, rows: int, columns: int) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = normal(rows, columns), normal(rows)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = np.ones(hidden, np.float16)
        tensors[f"{name}.bias"] = np.zeros(hidden, np.float16)

    for name, rows in (("word", VOCAB), ("position", POSITIONS), ("token_type", TYPES)):
        tensors[f"embeddings.{name}_embeddings.weight"] = normal(rows, hidden)
    norm("embeddings.LayerNorm")
    for i in range(layers):
        at = f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            dense(f"{at}.attention.self.{name}", hidden, hidden)
        dense(f"{at}.attention.output.dense", hidden, hidden)
        norm(f"{at}.attention.output.LayerNorm")
        dense(f"{at}.intermediate.dense", inner, hidden)
        dense(f"{at}.output.dense", hidden, inner)
        norm(f"{at}.output.LayerNorm")
    dense("pooler.dense", hidden, hidden)
    save_file(tensors, folder / "model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has; the result says so")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--recipe", default="faithful")
    parser.add_argument("--embedding", choices=("private", "client"), default="private")
    parser.add_argument("--repeat", type=int, default=3, help="timed runs after the verified one; the median counts")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    layers, hidden, heads = SHAPES[args.shape]
    layers = args.layers or layers
    rng = np.random.default_rng(args.seed)
    ids = rng.integers(5, VOCAB, (1, args.tokens))
    ids[0, 0], ids[0, -1] = 2, 3
    texts: dict[str, Any] = {"input_ids": ids}

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint(folder, layers, hidden, heads, args.seed)
        started = time.perf_counter()
        settings = {"recipe": args.recipe, "embedding": args.embedding}
        with SecureModel.from_pretrained(folder, backend="numpy", **settings) as model:
            loading = time.perf_counter() - started
            first = model(texts)
            profile = model.profile
            assert isinstance(profile, RangeProfile) and model.world is not None and model.provisioning is not None
            expected = twin(folder, texts, recipe=args.recipe, profile=profile)
            exact = plain_bert(folder, texts)
            error = largest(first.last_hidden_state, expected.last_hidden_state)
            if not error <= TOLERANCE:
                raise SystemExit(f"the secure answer is off by {error:.3g} from its twin: nothing is timed")
            seconds, costs = [], []
            for _ in range(args.repeat):
                started = time.perf_counter()
                costs.append(model(texts).cost)
                seconds.append(time.perf_counter() - started)
            cost, provisioning = costs[-1], model.provisioning
            kernels = model.world.kernels.name

    median = float(np.median(seconds))
    per_layer = cost.children["layer.0"].rounds
    result = {
        "shape": args.shape, "layers": layers, "hidden": hidden, "heads": heads, "tokens": args.tokens,
        "recipe": args.recipe, "embedding": args.embedding, "kernels": kernels,
        "error_to_twin": error, "error_to_plaintext": largest(first.last_hidden_state, exact.last_hidden_state),
        "seconds_all_roles": round(median, 3), "seconds_each": [round(s, 3) for s in seconds],
        "online_bytes_both_directions": cost.bytes, "rounds": cost.rounds, "rounds_per_layer": per_layer,
        "dealer_bytes": cost.dealer_bytes, "peak_memory_bytes": peak_memory(),
        "provisioning_seconds": round(loading, 2), "provisioning_bytes": provisioning.offline_bytes,
        "predicted_seconds_lan": round(cost.predict(latency=0.5e-3, bandwidth=1e9) + cost.offline_seconds, 2),
        "by_kind": {name: figures(c) for name, c in cost.by_kind().items()},
    }
    print(json.dumps(result, indent=1))
    suffix = "" if args.layers is None else f"-{layers}layers"
    record(f"bert-{args.shape}-{args.tokens}-{args.recipe}{suffix}" + ("-client" if args.embedding == "client" else ""),
           result)


def figures(cost: Cost) -> dict[str, Any]:
    return {
        "seconds": round(cost.seconds, 3), "offline_seconds": round(cost.offline_seconds, 3), "bytes": cost.bytes,
        "rounds": cost.rounds, "dealer_bytes": cost.dealer_bytes,
    }


def largest(x: Any, y: Any) -> float:
    return float(np.abs(np.asarray(x) - np.asarray(y)).max())


if __name__ == "__main__":
    main()
