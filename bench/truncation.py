"""Truncates many random values, and counts results that are off by one unit in the last place or more.

    python bench/truncation.py --count 100000000
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from report import record

from secformer.mpc.fixed import FixedPoint
from secformer.mpc.simulate import World

BATCH = 2_000_000
MAGNITUDE_BITS = 13


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10**8, help="truncations to make (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    count, seed = (args := parser.parse_args()).count, args.seed

    fixed = FixedPoint()
    rng = np.random.default_rng(seed)
    world = World(backend="numpy", fixed=fixed)
    frac = 2 * fixed.frac
    limit = 1 << (MAGNITUDE_BITS + frac)

    def program(session: Any, words: np.ndarray) -> np.ndarray:
        width = fixed.window(frac, fixed.magnitude)
        (settled,) = session.settle(session.accept(words, frac=frac, width=width))
        return settled.data  # a test of the gate itself: its words are compared here, and nothing is revealed

    done = wrong = 0
    worst, total, started, plan = 0.0, 0.0, time.perf_counter(), None
    while done < count:
        n = min(BATCH, count - done)
        z = rng.integers(-limit + 1, limit, n, dtype=np.int64)
        z[: min(n, 4)] = np.array([limit - 1, -limit + 1, -1, 0])[: min(n, 4)]
        mask = rng.integers(0, 2**64, n, dtype=np.uint64)
        outcome = world.run(program, z.view(np.uint64) - mask, mask, plan=plan if n == BATCH else None)
        plan = outcome.plan if n == BATCH else None
        got = (outcome.results[0] + outcome.results[1]).view(np.int64)
        # exact comparison in integers: |got 2^f - z| < 2^f
        error = got * (1 << fixed.frac) - z
        wrong += int((np.abs(error) >= 1 << fixed.frac).sum())
        worst = max(worst, float(np.abs(error).max()) / 2**fixed.frac)
        total += float(error.sum(dtype=np.float64)) / 2**fixed.frac
        done += n
    seconds = time.perf_counter() - started
    result = {
        "count": done, "fractional_bits": fixed.frac, "magnitude": f"|v| < 2^{MAGNITUDE_BITS}", "wrong": wrong,
        "largest_error_ulp": worst, "mean_error_ulp": total / done, "seconds": round(seconds, 2),
    }
    print(result)
    record("truncation", result)


if __name__ == "__main__":
    main()
