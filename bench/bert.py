"""BERT's cost: seconds, bytes, rounds, dealer bytes and memory of one secure inference, verified before it is timed.

    python bench/bert.py --shape base --tokens 128 --recipe faithful
    python bench/bert.py --shape base --tokens 512 --recipe faithful,secformer,puma,crypten
    python bench/bert.py --shape large --tokens 512 --layers 4 --recipe all
    python bench/bert.py --shape base --tokens 128 --frac 12

The weights are random, like those of an untrained BERT (normal, 0.02), because no checkpoint of this size comes with
the project. The vocabulary is full, embeddings are private, and all three roles run in one process. The answer is
compared with the float64 twin of the same recipe before anything is timed. Recipes run one after the other, each in a
process of its own, so that peak memory is measured per recipe. Each row is recorded as bert-<shape>-<tokens>-<recipe>.
A run of several recipes is also recorded as comparison-<shape>-<tokens>, with ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from float32 import Float32Bert
from report import RESULTS, peak_memory, record
from safetensors.numpy import save_file

from secformer import SecureModel
from secformer.memory import keep_memory
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import measure
from secformer.models.run.comparison import parts
from secformer.models.run.local import plain_bert, twin
from secformer.models.run.networks import LAN, NETWORKS, WAN
from secformer.mpc.meter import Cost
from secformer.protocols.recipes import EXACT, RECIPES, recipe_named

SHAPES = {
    "tiny": (2, 128, 2),
    "mini": (6, 384, 12),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}
VOCAB, POSITIONS, TYPES = 30522, 512, 2
TOLERANCE = 0.02  # largest error of last_hidden_state, whose entries are of the order of 1
ROOT = Path(__file__).resolve().parents[1]
BASELINES = ("puma", "crypten")  # recipes that the others are compared with


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


def settings() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--layers", type=int, help="run fewer layers than the shape has; the result says so")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--recipe", default="faithful", help="a name, several with commas between them, or all")
    parser.add_argument("--embedding", choices=("private", "client"), default="private")
    parser.add_argument("--frac", type=int, default=16, help="fractional bits of the fixed point: 16, or 12 (faster)")
    parser.add_argument("--profile", choices=("own", "builtin"), default="own",
                        help="measure the model's ranges on the bench's own ids (default) or on the built-in texts, "
                             "which takes minutes for a large model")
    parser.add_argument("--repeat", type=int, default=3,
                        help="timed runs after the verified one; the fastest counts, as other work only adds time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="largest error that counts as verified")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default: bench/results)")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # for a row's own process: the checkpoint
    parser.add_argument("--row", type=Path, help=argparse.SUPPRESS)     # and where its result goes
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = settings().parse_args(argv)
    keep_memory()  # as the command line does
    if args.row is not None:
        args.row.write_text(json.dumps(measured(args)), "utf-8")
        return 0
    names = [n for n in RECIPES if n != EXACT.name] if args.recipe == "all" else args.recipe.split(",")
    for name in names:
        recipe_named(name)
    rows = {}
    with tempfile.TemporaryDirectory() as at:
        layers, hidden, heads = SHAPES[args.shape]
        checkpoint(Path(at), args.layers or layers, hidden, heads, args.seed)
        for name in names:
            print(f"{name} ...", file=sys.stderr, flush=True)
            row = in_own_process(args, name, Path(at))
            if row is None:
                print(f"{name}: no result", file=sys.stderr)
                continue
            rows[name] = row
            kernels = "" if row["kernels"] == "numba" else f"-{row['kernels']}"
            record(f"bert-{args.shape}-{args.tokens}-{name}{suffix_of(args)}{kernels}", row, args.out)
    if not rows:
        return 1
    print(table(rows))
    if len(names) > 1:
        failed = [name for name in names if name not in rows]
        facts = {"shape": args.shape, "tokens": args.tokens, "failed": failed, "networks": [str(n) for n in NETWORKS],
                 "rows": rows, "ratios": ratios(rows)}
        print(json.dumps(facts["ratios"], indent=1))
        record(f"comparison-{args.shape}-{args.tokens}{suffix_of(args)}", facts, args.out)
    return 0 if len(rows) == len(names) else 1


def suffix_of(args: argparse.Namespace) -> str:
    layers = "" if args.layers is None else f"-{args.layers}layers"
    return layers + ("-client" if args.embedding == "client" else "") + (f"-frac{args.frac}" if args.frac != 16 else "")


def in_own_process(args: argparse.Namespace, name: str, folder: Path) -> dict[str, Any] | None:
    """A row measured in a fresh process; None where that process failed, which wrote its error to stderr."""
    result = folder / f"{name}.json"
    command = [sys.executable, __file__, "--recipe", name, "--folder", str(folder), "--row", str(result)]
    for key in ("shape", "tokens", "embedding", "profile", "repeat", "seed", "tolerance", "layers", "frac"):
        value = getattr(args, key)
        command += [] if value is None else [f"--{key}", str(value)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])  # if it is not installed
    done = subprocess.run(command, check=False, env=os.environ | {"PYTHONPATH": path})
    if done.returncode or not result.is_file():
        return None
    row: dict[str, Any] = json.loads(result.read_text("utf-8"))
    return row


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """One recipe on the checkpoint in args.folder: verified, then timed."""
    layers, hidden, heads = SHAPES[args.shape]
    ids = np.random.default_rng(args.seed).integers(5, VOCAB, (1, args.tokens))
    ids[0, 0], ids[0, -1] = 2, 3
    texts: dict[str, Any] = {"input_ids": ids}
    recipe = recipe_named(args.recipe)
    started = time.perf_counter()
    profile = measure(ModelFolder(args.folder), texts if args.profile == "own" else None, recipe=recipe)
    profiling = time.perf_counter() - started
    started = time.perf_counter()
    with SecureModel.from_pretrained(args.folder, backend="numpy", recipe=recipe, profile=profile,
                                     embedding=args.embedding, frac=args.frac, untrained_recipe=True) as model:
        loading = time.perf_counter() - started
        first = model(texts)
        peak = peak_memory()  # before the twins add to it
        expected = twin(args.folder, texts, recipe=recipe, profile=profile, frac=args.frac, untrained_recipe=True)
        error = largest(first.last_hidden_state, expected.last_hidden_state)
        if not error <= args.tolerance:
            raise SystemExit(f"the secure answer is off by {error:.3g} from its twin: nothing is timed")
        exact = plain_bert(args.folder, texts)
        plaintext = Float32Bert(args.folder, args.layers or layers, heads)
        if not largest(plaintext(ids[0]), exact.last_hidden_state[0]) <= 1e-3:
            raise SystemExit("the float32 pass does not agree with the float64 one: nothing is timed")
        seconds, costs, processor, plain_seconds = [], [], [], []
        for _ in range(args.repeat):
            started = time.perf_counter()
            plaintext(ids[0])
            plain_seconds.append(time.perf_counter() - started)
            started, busy = time.perf_counter(), time.process_time()
            cost = model(texts).cost
            seconds.append(time.perf_counter() - started)
            processor.append(time.process_time() - busy)
            costs.append(cost)
        assert model.world is not None and model.provisioning is not None
        provisioning, kernels = model.provisioning, model.world.kernels.name
    cost = min(costs, key=lambda c: c.seconds + c.offline_seconds)
    return {
        "shape": args.shape, "layers": args.layers or layers, "layers_of_the_shape": layers, "hidden": hidden,
        "heads": heads, "tokens": args.tokens, "recipe": args.recipe, "embedding": args.embedding,
        "profile": args.profile, "profile_margin": profile.margin, "kernels": kernels, "repeat": args.repeat,
        "seed": args.seed, "frac": args.frac,
        "error_to_twin": error, "error_to_plaintext": largest(first.last_hidden_state, exact.last_hidden_state),
        "seconds_all_roles": round(min(seconds), 3), "seconds_each": [round(s, 3) for s in seconds],
        "float32_seconds": round(min(plain_seconds), 4),
        "ratio_to_float32": round(min(seconds) / min(plain_seconds), 1),
        "processor_seconds_all_roles": round(min(processor), 3),
        "online_seconds": round(cost.seconds, 3), "offline_seconds": round(cost.offline_seconds, 3),
        "online_bytes_both_directions": cost.bytes, "rounds": cost.rounds,
        "rounds_per_layer": cost.children["layer.0"].rounds,
        "dealer_bytes": cost.dealer_bytes, "peak_memory_bytes": peak,
        "profiling_seconds": round(profiling, 2), "provisioning_seconds": round(loading, 2),
        "provisioning_bytes": provisioning.offline_bytes,
        "predicted_seconds_lan": round(LAN.online(cost) + cost.offline_seconds, 2),
        "predicted": {n.name: {"online": round(n.online(cost), 3), "ahead": round(n.ahead(cost), 3)} for n in NETWORKS},
        "by_part": {name: figures(c) for name, c in parts(cost).items()},
        "by_kind": {name: figures(c) for name, c in cost.by_kind().items()},
    }


def ratios(rows: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """A baseline's cost divided by a recipe's cost, by baseline, recipe and quantity: above 1, the recipe is better.
    The times are online times on LAN and WAN, and all seconds measured here."""
    quantities = {
        "lan_online": lambda r: r["predicted"][LAN.name]["online"],
        "lan_online_and_ahead": lambda r: sum(r["predicted"][LAN.name].values()),
        "wan_online": lambda r: r["predicted"][WAN.name]["online"],
        "seconds_here": lambda r: r["online_seconds"] + r["offline_seconds"],
        "online_bytes": lambda r: r["online_bytes_both_directions"],
        "rounds": lambda r: r["rounds"],
        "dealer_bytes": lambda r: r["dealer_bytes"],
    }
    return {
        base: {name: {q: round(of(rows[base]) / of(row), 2) for q, of in quantities.items()}
               for name, row in rows.items() if name != base}
        for base in (*BASELINES, "secformer") if base in rows
    }


def table(rows: Mapping[str, dict[str, Any]]) -> str:
    lines = [f"{'recipe':<18}{'to twin':>9}{'to plain':>9}{'online s':>9}{'ahead s':>8}{'MB':>8}{'rounds':>7}"
             f"{'dealer MB':>10}{'GB peak':>8}{'LAN s':>8}{'WAN s':>8}"]
    for name, r in rows.items():
        lines.append(
            f"{name:<18}{r['error_to_twin']:9.1e}{r['error_to_plaintext']:9.1e}{r['online_seconds']:9.2f}"
            f"{r['offline_seconds']:8.2f}{r['online_bytes_both_directions'] / 1e6:8.0f}{r['rounds']:7d}"
            f"{r['dealer_bytes'] / 1e6:10.0f}{r['peak_memory_bytes'] / 1e9:8.2f}"
            f"{r['predicted'][LAN.name]['online']:8.2f}{r['predicted'][WAN.name]['online']:8.1f}")
        lines += [f"  {part:<16}{'':>18}{c['seconds']:9.2f}{c['offline_seconds']:8.2f}{c['bytes'] / 1e6:8.0f}"
                  f"{c['rounds']:7d}{c['dealer_bytes'] / 1e6:10.0f}" for part, c in r["by_part"].items()]
    return "\n".join(lines)


def figures(cost: Cost) -> dict[str, Any]:
    return {
        "seconds": round(cost.seconds, 3), "offline_seconds": round(cost.offline_seconds, 3), "bytes": cost.bytes,
        "rounds": cost.rounds, "dealer_bytes": cost.dealer_bytes,
    }


def largest(x: Any, y: Any) -> float:
    return float(np.abs(np.asarray(x) - np.asarray(y)).max())


if __name__ == "__main__":
    sys.exit(main())
