"""Small requests: bytes of a half, seconds of keys and of their expansion, and the whole check of rows, for real
vocabularies.

    python bench/small_requests.py [--threads N] [--save RESULT.json]

Proves first that both parties' rows sum to the unit vectors. Targets: 500 bytes a token, 64 kB for 128 tokens, 60 ms
for the expansion of 128 rows of 30,522 words on two cores. The check is run by both parties and the dealer in one
process; its bytes are those of one party, and its processor time is that of all three.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from secformer.models.data.batch import Batch, Row
from secformer.models.data.inputs import TokenInputs
from secformer.mpc.backend import choose_backend
from secformer.mpc.kernels import Kernels, kernels_for
from secformer.mpc.simulate import World
from secformer.mpc.unit_rows import SKETCHES
from secformer.roles.messages import Half, pack_half

MODELS = {"BERT_BASE": TokenInputs(30_522, 2, 512, 768), "SmolLM2": TokenInputs(49_152, 0, 8192, 576)}
TOKENS, TRIES = 128, 15


def median(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Milliseconds on that clock, after one run that does not count."""
    work()
    took = []
    for _ in range(TRIES):
        started = clock()
        work()
        took.append(1e3 * (clock() - started))
    return round(statistics.median(took), 2)


def checked(name: str, inputs: TokenInputs, kernels: Kernels, both: tuple[np.ndarray, np.ndarray]) -> dict[str, object]:
    """The check of both parties' rows: its price, and its time."""
    world = World(kernels=kernels)

    def program(s: Any, words: np.ndarray) -> Any:
        with s.beside(s.unit_rows(s.accept(words, frac=0, operand=True), inputs.spans)) as check:
            pass
        return check.result

    outcome = world.run(program, *both)
    if any(words.any() for words in outcome.results):
        raise SystemExit(f"{name}: the check refuses right rows")
    return {"check rounds": outcome.cost.rounds, "check bytes": outcome.cost.bytes // 2,
            "check ms": median(lambda: world.run(program, *both)),
            "check processor ms": median(lambda: world.run(program, *both), time.process_time)}


def measure(name: str, inputs: TokenInputs, threads: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, inputs.words, TOKENS)
    batch = Batch((Row(ids, np.zeros(TOKENS, np.int64), np.ones(TOKENS, np.int64)),))
    kernels, seed = kernels_for(choose_backend("numpy", threads=threads)), bytes(range(32))
    both = inputs.keys(batch, seed)
    rows = inputs.rows(both[0], kernels)
    others = inputs.rows(both[1], kernels)
    if not np.array_equal(rows + others, inputs.one_hot(batch, np.uint64)):
        raise SystemExit(f"{name}: the rows are wrong, so their times mean nothing")
    bodies = [len(pack_half(Half("0" * 32, "0" * 64, batch.lengths, batch.mask, keys=keys))) for keys in both]
    left, right = rng.integers(0, 2**64, (2, SKETCHES, inputs.words), dtype=np.uint64)
    return {"model": name, "tokens": TOKENS, "words": inputs.words, "kernels": kernels.name, "threads": threads,
            "body bytes": max(bodies), "bytes per token": round(max(bodies) / TOKENS, 1),
            "body bytes before": 4 * TOKENS * inputs.columns,
            "keys ms": median(lambda: inputs.keys(batch, seed)),
            "expansion ms": median(lambda: inputs.rows(both[0], kernels)),
            "sketches ms": median(lambda: kernels.sketches(rows, 0, left, right)),
            **checked(name, inputs, kernels, (rows, others))}


def main() -> None:
    parser = argparse.ArgumentParser(description="bytes and seconds of small requests")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    found = [measure(name, inputs, options.threads) for name, inputs in MODELS.items()]
    for each in found:
        print(json.dumps(each))
    if options.save:
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                   "load": os.getloadavg()[0]}
        options.save.write_text(json.dumps({"machine": machine, "results": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
