"""Throughput: texts per second of one call with 1, 8 or 64 texts of mixed lengths.

    python bench/throughput.py
    python bench/throughput.py --shape tiny --repeat 1

The model has random weights; the default shape is MiniLM's (6 layers, hidden 384, 12 heads). All roles run in one
process. The same 64 texts are given in calls of 1, of 8 and of 64, in turns, so that other work on the machine meets
all of them; medians count. A fourth way gives 64 texts at once and lets a batch pad as much as it likes, to show what
the bound on padding costs. Every answer is compared with the float64 twin; if one is off, nothing is recorded.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
from bert import SHAPES, VOCAB, checkpoint
from report import peak_memory, record

from secformer import SecureModel
from secformer.memory import keep_memory
from secformer.models.data import batch
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import measure
from secformer.models.run.local import twin
from secformer.protocols.recipes import recipe_named

TEXTS, SHORTEST, LONGEST = 64, 4, 128
MIDDLE, SPREAD = 20, 0.6  # the median length, and the standard deviation of its logarithm
TOLERANCE = 0.02          # of last_hidden_state, whose entries are of the order of 1
SINGLY, ALL, PADDED = "1", "64", "64, padded freely"
WAYS = {SINGLY: 1, "8": 8, ALL: TEXTS, PADDED: TEXTS}  # texts per call
FREELY = 10**9, 1         # positions per tokens


def mixed(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask (64, longest) of texts whose lengths are spread as those of sentences are."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(np.log(MIDDLE) + SPREAD * rng.standard_normal(TEXTS)).astype(int).clip(SHORTEST, LONGEST)
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    return rng.integers(5, VOCAB, mask.shape) * mask, mask


def answers(model: SecureModel, ids: np.ndarray, mask: np.ndarray, way: str) -> tuple[list[np.ndarray], list[Any]]:
    """Each text's hidden states (T, C), and the cost of every call."""
    found, costs = [], []
    with mock.patch.object(batch, "PADDING", FREELY if way == PADDED else batch.PADDING):
        for i in range(0, TEXTS, WAYS[way]):
            there = mask[i : i + WAYS[way]]
            longest = int(there.sum(axis=1).max())
            out = model({"input_ids": ids[i : i + WAYS[way], :longest], "attention_mask": there[:, :longest]})
            found += [hidden[: attend.sum()] for hidden, attend in zip(out.last_hidden_state, there, strict=True)]
            costs.append(out.cost)
    return found, costs


def measured(args: argparse.Namespace) -> dict[str, Any]:
    ids, mask = mixed(args.seed)
    recipe = recipe_named(args.recipe)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint(Path(folder), *SHAPES[args.shape], args.seed)
        every: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        profile = measure(ModelFolder(folder), every, recipe=recipe)
        exact = twin(folder, every, recipe=recipe, profile=profile).last_hidden_state
        with SecureModel.from_pretrained(folder, recipe=recipe, profile=profile, backend="numpy",
                                         batch_tokens=args.batch_tokens) as model:
            model({"input_ids": ids[:2, :SHORTEST]})  # compiles, and opens the weights
            ways: dict[str, dict[str, Any]] = {way: {"seconds": [], "processor_seconds": []} for way in WAYS}
            for turn in range(args.repeat):
                for way, facts in ways.items():
                    started, busy = time.perf_counter(), time.process_time()
                    found, costs = answers(model, ids, mask, way)
                    facts["seconds"].append(round(time.perf_counter() - started, 3))
                    facts["processor_seconds"].append(round(time.process_time() - busy, 3))
                    error = max(float(np.abs(mine - wanted[: len(mine)]).max())
                                for mine, wanted in zip(found, exact, strict=True))
                    if not error <= TOLERANCE:
                        raise SystemExit(f"{way} texts per call: off by {error:.3g} from the twin: nothing is recorded")
                    facts |= {"calls": len(costs), "error": max(error, facts.get("error", 0.0)),
                              "rounds": sum(c.rounds for c in costs), "bytes": sum(c.bytes for c in costs)}
                    print(turn, way, facts["seconds"][-1], facts["processor_seconds"][-1], flush=True)
    for facts in ways.values():
        facts["texts_per_second"] = round(TEXTS / median(facts["seconds"]), 3)
        for name, key in (("times_the_rate_of_one_by_one", "seconds"), ("the_same_by_processor", "processor_seconds")):
            facts[name] = round(median(alone / here for alone, here in zip(ways[SINGLY][key], facts[key], strict=True)),
                                2)
    return {"shape": args.shape, "recipe": args.recipe, "texts": TEXTS, "tokens": int(mask.sum()),
            "shortest": int(mask.sum(axis=1).min()), "longest": int(mask.sum(axis=1).max()),
            "batch_tokens": args.batch_tokens, "repeat": args.repeat, "seed": args.seed,
            "batches": grouping(mask, args.batch_tokens), "peak_memory_bytes": peak_memory(), "texts_per_call": ways}


def grouping(mask: np.ndarray, limit: int) -> list[dict[str, Any]]:
    """The batches of all texts: how many, how long, and how many positions attention computes per token."""
    rows = [batch.Row(np.zeros(n, int), np.zeros(n, int), np.ones(n, int)) for n in mask.sum(axis=1)]
    return [{"texts": b.size, "shortest": int(b.lengths.min()), "longest": b.longest,
             "positions_per_token": round(b.size * b.longest / b.tokens, 3)} for _, b in batch.batches(rows, limit)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--recipe", default="faithful")
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=3, help="timed turns of all ways; medians count")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    keep_memory()  # as the command line does
    found = measured(args)
    for way, facts in found["texts_per_call"].items():
        print(f"{way:>20} texts per call: {facts['texts_per_second']:.2f} texts/s, "
              f"{facts['times_the_rate_of_one_by_one']:.2f} times one by one, {facts['rounds']} rounds")
    record("throughput" if args.shape == "mini" else f"throughput-{args.shape}", found)


if __name__ == "__main__":
    main()
