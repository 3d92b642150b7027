"""Products of few rows and rounds of few words, as a language model has them when it decodes: verified, then timed.

    python bench/thin.py
    python bench/thin.py --before ../before --turns 3     # and another checkout of this repository, in turns

Products of 1, 8 and 64 rows with the weights of SmolLM2-135M, whose right operands lie row by row or column by column,
beside what reading them alone takes. Then a program of one row: per layer a product with a 576 x 1536 weight, a series
and an element-wise product, which two parties and a dealer run in this process, each in one thread. The same program on
8 x 16 weights costs what is not arithmetic. Processor seconds count all threads; the dealer's are what the two parties
do not use. The fastest run of all turns counts, as other work on the machine only adds time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from report import RESULTS, record

from secformer.mpc.backend import Backend
from secformer.mpc.fixed import FixedPoint, decode, encode
from secformer.mpc.functions import Series
from secformer.mpc.kernels import kernels_for
from secformer.mpc.session import CLIENT
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.simulate import World

SHAPES = ((576, 960), (576, 1536), (1536, 576), (576, 49152), (49152, 576))
ROWS, MANY = (1, 8), 64  # MANY rows only with the smaller weights
PROGRAMS = ((8, 16), (576, 1536))
READ = 1 << 25  # words that are summed
LAYERS, HARMONICS = 30, 20
TOLERANCE = 2.0**-8  # error of the program's result, in parts of the largest value
SERIES = Series(6, (0.1, *(1.0 / k**2 for k in range(1, HARMONICS + 1))), (0.0,) * (HARMONICS + 1), linear=0.5)


def fastest(run: Callable[[], Any], repeat: int) -> float:
    found = []
    for _ in range(repeat):
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    return min(found)


def reading(repeat: int) -> dict[str, float]:
    """Gigabytes per second that summing memory reads, by one thread and by two at once."""
    words = np.ones(READ, dtype=np.uint64)
    halves = np.split(words, 2)
    with ThreadPoolExecutor(2) as pool:
        both = fastest(lambda: list(pool.map(np.add.reduce, halves)), repeat)
    one = fastest(lambda: np.add.reduce(words), repeat)
    return {"one_thread": round(words.nbytes / one / 1e9, 2), "two_threads": round(words.nbytes / both / 1e9, 2)}


def products(repeat: int) -> list[dict[str, Any]]:
    """Every shape, order, number of rows and width on one thread."""
    rng, kernels, found = np.random.default_rng(0), kernels_for(Backend("numpy", np, 1)), []
    for k, m in SHAPES:
        for dtype, bits in ((np.uint64, 64), (np.uint64, 48), (np.uint32, 32)):
            b = rng.integers(0, 2**64, (k, m), dtype=np.uint64).astype(dtype)
            for order, right in (("rows", b), ("columns", np.ascontiguousarray(b.T).T)):
                for rows in (*ROWS, *(MANY,) * (k * m < 1 << 20)):
                    a = rng.integers(0, 2**64, (rows, k), dtype=np.uint64).astype(dtype)
                    _verify(kernels.matmul(a, right, bits), a, b, bits)
                    seconds = fastest(lambda a=a, right=right, bits=bits: kernels.matmul(a, right, bits), repeat)
                    found.append({"shape": [rows, k, m], "order": order, "bits": bits,
                                  "milliseconds": round(seconds * 1e3, 3),
                                  "gigabytes_per_second": round(b.nbytes / seconds / 1e9, 2),
                                  "gmacs": round(rows * k * m / seconds / 1e9, 2)})
    return found


def _verify(got: np.ndarray, a: np.ndarray, b: np.ndarray, bits: int) -> None:
    """Some columns against whole numbers."""
    for j in (0, b.shape[1] // 2, b.shape[1] - 1):
        column = b[:, j].tolist()
        for row, word in zip(a[:2].tolist(), got[:2, j].tolist(), strict=True):
            if sum(x * y for x, y in zip(row, column, strict=True)) % 2**bits != word % 2**bits:
                raise SystemExit("a product is wrong: nothing is timed")


def program(hidden: int, inner: int, repeat: int) -> dict[str, Any]:
    """One row through `LAYERS` layers, all roles in this process."""
    rng, fixed, world = np.random.default_rng(1), FixedPoint(), World(backend="numpy")
    turned = np.linalg.qr(rng.normal(0.0, 1.0, (hidden, hidden)))[0]  # a row keeps its length
    w = np.concatenate([turned] * -(-inner // hidden), axis=1)[:, :inner]
    w = decode(encode(w, fixed.frac), fixed.frac)
    x = decode(encode(rng.normal(0.0, 1.0, (1, hidden)), fixed.frac), fixed.frac)
    weights: dict[Any, Any] = {}
    seconds: dict[Any, list[float]] = {party: [] for party in world.parties}

    def load(s: Any, words: np.ndarray) -> None:
        weights[s] = s.open_weight(words, width=48)

    def layers(s: Any, words: np.ndarray) -> Any:
        started, row = time.thread_time(), s.accept(words)
        for _ in range(LAYERS):
            y = s.matmul(row, weights[s])
            z = s.mul(s.series(y * 0.05, [SERIES])[0], y)
            row = z[:, :hidden] * 0.6
        result = s.reveal(row, CLIENT)
        if s in seconds:
            seconds[s].append(time.thread_time() - started)
        return result

    twin = PlainSession(fixed)
    load(twin, w)
    halves = [[encode(v, fixed.frac) - r, r] for v in (w, x)
              for r in [rng.integers(0, 2**64, v.shape, dtype=np.uint64)]]
    world.run(load, *halves[0])
    outcome = world.run(layers, *halves[1])
    expected = np.asarray(layers(twin, x))
    error = float(np.abs(decode(outcome.results[0] + outcome.results[1], fixed.frac) - expected).max())
    largest = float(np.abs(expected).max())
    if error > TOLERANCE * largest or not 2.0**-6 < largest < 2.0**8:
        raise SystemExit(f"the program is {error:g} off at {largest:g}: nothing is timed")
    wall, processor = [], []
    for _ in range(repeat):
        started, used = time.perf_counter(), time.process_time()
        world.run(layers, *halves[1], plan=outcome.plan)
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    own = [min(each) for each in seconds.values()]
    return {"weights": [hidden, inner], "rounds": outcome.plan.rounds, "seconds": min(wall),
            "processor_seconds": min(processor), "party_processor_seconds": max(own),
            "dealer_processor_seconds": max(0.0, min(processor) - sum(own)),
            "recording_seconds": fastest(lambda: world.recorder.record(layers, halves[1][0]), repeat)}


def measured(repeat: int) -> dict[str, Any]:
    return {"programs": [program(*shape, 5 * repeat) for shape in PROGRAMS],
            "reading_gigabytes_per_second": reading(repeat), "products": products(repeat)}


def elsewhere(checkout: Path, repeat: int) -> dict[str, Any]:
    """The same, measured by this file with the code of another checkout."""
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([sys.executable, __file__, "--repeat", str(repeat), "--out", out], check=True, cwd=out,
                       env=os.environ | {"PYTHONPATH": str(checkout)}, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads((Path(out) / "thin.json").read_text("utf-8"))["now"]
        return found


def best(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """The fastest figures of several turns."""
    programs = [{key: min(each) if isinstance(each[0], float) else each[0]
                 for key, each in ((key, [row[key] for row in rows]) for key in rows[0])}
                for rows in zip(*(turn["programs"] for turn in turns), strict=True)]
    speeds = [turn["reading_gigabytes_per_second"] for turn in turns]
    return {"programs": programs, "reading_gigabytes_per_second": {key: max(s[key] for s in speeds)
                                                                    for key in speeds[0]},
            "products": [min(rows, key=lambda row: row["milliseconds"])
                         for rows in zip(*(turn["products"] for turn in turns), strict=True)]}


def ratios(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Before over now: how many times as fast."""
    pairs = zip(before["products"], now["products"], strict=True)
    rows = [{key: b[key] for key in ("shape", "order", "bits")} | {
        "ratio": round(b["milliseconds"] / n["milliseconds"], 2)} for b, n in pairs]
    of_programs = [{key: round(b[key] / n[key], 2) for key in b if key.endswith("seconds") and n[key]}
                   for b, n in zip(before["programs"], now["programs"], strict=True)]
    return {"programs": of_programs, "products": rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout of the other revision")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    turns: dict[str, list[dict[str, Any]]] = {"before": [], "now": []}
    for _ in range(args.turns):
        if args.before:
            turns["before"].append(elsewhere(args.before.resolve(), args.repeat))
        turns["now"].append(measured(args.repeat))
    result = {name: best(found) for name, found in turns.items() if found}
    if args.before:
        result["before_over_now"] = ratios(result["before"], result["now"])
    for row in result["now"]["programs"]:
        print(row)
    record("thin", result, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
