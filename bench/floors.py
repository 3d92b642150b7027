"""The least work of one inference: arithmetic and bytes moved, counted from its plan, and their times here.

    python bench/floors.py

The bench takes a BERT_BASE at 128 and at 512 tokens, with each recipe. The counts are exact, from the recorded plan.
The rates are measured in the same run, on all cores: compiled ring products, ChaCha20 and copying. The floor is the
largest of the times, because the kinds of work may overlap; both kinds of products count as one. The sum of the times
is printed beside the floor. All other work is left out: series, tables, packing, additions.

products   multiplications of words in matrix products: two at each party, one at the dealer
narrow     the same for words of 32 bits, of which a vector holds twice as many: embeddings
expanded   bytes of ChaCha20: masks and party 0's shares at the parties, and all of these again at the dealer
moved      bytes read or written at least once: expanded words, corrections and messages at both ends, and the weights,
           which each product reads
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from bert import SHAPES, VOCAB, checkpoint
from gpu_floor import PRODUCTS, floors
from report import RESULTS, record

from secformer.models.data.batch import Batch
from secformer.models.data.parameters import load_weights
from secformer.models.data.shares import GhostTensors
from secformer.models.data.tensors import TABLE
from secformer.models.data.tokenizer import id_rows
from secformer.models.families.blocks import Forward
from secformer.models.families.folder import ModelFolder
from secformer.models.families.program import infer
from secformer.models.ranges.profile import measure
from secformer.mpc.backend import Backend, cores
from secformer.mpc.dealer.kinds import Kind
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.products import MatMul
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.kernels import kernels_for
from secformer.mpc.kernels.words import BLOCK_BYTES, drawn
from secformer.mpc.session import Session
from secformer.mpc.sessions.recorder import PlanRecorder
from secformer.protocols.recipes import recipe_named

TOKENS = (128, 512)
RECIPES = ("faithful", "secformer")


def counted(plan: Plan) -> dict[str, int]:
    """The counts of all three roles together: word multiplications of matrix products, narrow ones among these, bytes
    expanded, bytes moved."""
    by_bits = floors(plan.kinds)["words_by_bits"]
    narrow = sum(words for bits, words in by_bits.items() if bits <= 32)
    expanded = sum(expansion(kind) for kind in plan.kinds)
    weights = sum(reads(kind) for kind in plan.kinds)
    moved = expanded + 2 * plan.dealer_bytes + 2 * plan.bytes + weights
    return {"products": sum(by_bits.values()) - narrow, "narrow": narrow, "expanded": expanded, "moved": moved}


def expansion(kind: Kind) -> int:
    """Both parties' masks and party 0's derived shares, counted at the parties and again at the dealer."""
    total = 0
    for field in kind.fields():
        size = field.count if field.xor and field.derived else BLOCK_BYTES * drawn(field.count, field.bits)
        total += 2 * size if field.derived else 4 * size
    return total


def reads(kind: Kind) -> int:
    """Bytes of weights that the multiplications of a product read."""
    if not isinstance(kind, MatMul):
        return 0
    return sum(PRODUCTS * math.prod(kind.shapes[j]) * (4 if width <= 32 else 8)
               for _, j, width in kind.pairs if kind.weights[j] is not None)


def rates(repeat: int) -> dict[str, float]:
    """Word multiplications, keystream bytes and copied bytes (read and written) per second, on all cores at once."""
    rng, threads = np.random.default_rng(0), cores()
    a, b = (rng.integers(0, 2**64, size, dtype=np.uint64) for size in ((128, 768), (768, 3072)))
    small_a, small_b = a.astype(np.uint32), b.astype(np.uint32)
    kernels = kernels_for(Backend("numpy", np, 1))
    first, second = (np.ones(1 << 25, dtype=np.uint64) for _ in range(2))
    size = first.size // threads
    jobs: dict[str, tuple[Callable[[int], Any], float]] = {
        "products": (lambda i: kernels.matmul(a, b, 48), float(a.size * b.shape[1])),
        "narrow": (lambda i: kernels.matmul(small_a, small_b, 32), float(a.size * b.shape[1])),
        "expanded": (lambda i: kernels.keystream(bytes(32), i << 20, 1 << 25), float(1 << 25)),
        "moved": (lambda i: np.copyto(second[i * size : (i + 1) * size], first[i * size : (i + 1) * size]),
                  16.0 * size),
    }
    found = {}
    with ThreadPoolExecutor(threads) as pool:
        for name, (job, work) in jobs.items():
            seconds = []
            for _ in range(repeat + 1):
                started = time.perf_counter()
                list(pool.map(job, range(threads)))
                seconds.append(time.perf_counter() - started)
            found[name] = threads * work / min(seconds[1:])
    return found


def plan_of(folder: ModelFolder, tokens: int, name: str, seed: int, recorder: PlanRecorder | None = None) -> Plan:
    """The plan of one request: random ids, ranges measured on these, private embeddings. Sharing the weights is not
    counted. `recorder` is one that records more."""
    texts = {"input_ids": np.random.default_rng(seed).integers(5, VOCAB, (1, tokens))}
    recipe, fixed = recipe_named(name), FixedPoint()
    profile = measure(folder, texts, recipe=recipe)
    layout, batch = folder.layout(fixed, private=True), Batch(tuple(id_rows(texts, folder.architecture.inputs)))
    request = folder.architecture.inputs.private_halves(batch, layout[TABLE].width, bytes(32))[0].ghost()
    recorder, kept = recorder or PlanRecorder(fixed), {}

    def load(s: Session, _: Any) -> None:
        kept[0] = load_weights(s, GhostTensors(layout))

    recorder.record(load, None)
    return recorder.record(
        lambda s, r: infer(s, folder.architecture, r, Forward(batch, kept[0], recipe, profile), ("last_hidden_state",)),
        request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    per_second = rates(args.repeat)
    print({name: f"{rate / 1e9:.2f} G/s" for name, rate in per_second.items()})
    print(f"{'recipe':<12}{'tokens':>7}{'G mul':>8}{'G narrow':>9}{'GB expanded':>12}{'GB moved':>10}"
          f"{'seconds each':>28}{'floor':>8}{'sum':>8}")
    with tempfile.TemporaryDirectory() as at:
        checkpoint(Path(at), *SHAPES[args.shape], args.seed)
        folder = ModelFolder(Path(at))
        for name in RECIPES:
            for tokens in args.tokens:
                counts = counted(plan_of(folder, tokens, name, args.seed))
                seconds = {key: count / per_second[key] for key, count in counts.items()}
                multiply = seconds["products"] + seconds["narrow"]
                floor, total = max(multiply, seconds["expanded"], seconds["moved"]), sum(seconds.values())
                rows.append({"recipe": name, "tokens": tokens, **counts,
                             "seconds": {key: round(s, 3) for key, s in seconds.items()},
                             "floor_seconds": round(floor, 3), "sum_seconds": round(total, 3)})
                g = [counts[key] / 1e9 for key in ("products", "narrow", "expanded", "moved")]
                print(f"{name:<12}{tokens:>7}{g[0]:8.1f}{g[1]:9.1f}{g[2]:12.2f}{g[3]:10.2f}"
                      f"{'  '.join(f'{s:.2f}' for s in seconds.values()):>28}{floor:8.2f}{total:8.2f}", flush=True)
    record("floors", {"shape": args.shape, "cores": cores(), "rates_per_second": per_second, "rows": rows}, args.out)


if __name__ == "__main__":
    main()
