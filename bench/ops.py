"""Kernels and verbs one by one: verified against exact arithmetic, then timed, with the bytes that each sends.

    python bench/ops.py

Matrix products are compared on one core, in the same run: float64 limbs (NumPy) against the compiled kernel. Verbs run
between both parties and the dealer in this process. Their errors are against float64, in units in the last place
(2^-16).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from report import record

from secformer.mpc.backend import Backend
from secformer.mpc.fixed import FixedPoint, decode, encode
from secformer.mpc.functions import Series
from secformer.mpc.kernels import NumpyKernels, kernels_for
from secformer.mpc.session import CLIENT
from secformer.mpc.simulate import World

SHAPE = (128, 768, 3072)
NARROW = 40  # bits of most linear layers' products


def best(run: Callable[[], Any], repeat: int) -> float:
    seconds = []
    for _ in range(repeat):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def matrix_products(repeat: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    n, k, m = SHAPE
    a = rng.integers(0, 2**64, (n, k), dtype=np.uint64)
    b = rng.integers(0, 2**64, (k, m), dtype=np.uint64)
    backend = Backend("numpy", np, 1)
    limbs, compiled = NumpyKernels(backend), kernels_for(backend)
    if not np.array_equal(limbs.matmul(a, b), compiled.matmul(a, b)):
        raise SystemExit("the kernels disagree: nothing is timed")
    exact = [sum(int(x) * int(y) for x, y in zip(a[0], b[:, j], strict=True)) % 2**64 for j in range(4)]
    if exact != [int(v) for v in limbs.matmul(a[:1], b[:, :4])[0]]:
        raise SystemExit("the limb product is wrong: nothing is timed")
    if ((limbs.matmul(a, b, NARROW) - compiled.matmul(a, b, NARROW)) & np.uint64(2**NARROW - 1)).any():
        raise SystemExit(f"the kernels disagree modulo 2^{NARROW}: nothing is timed")
    macs = n * k * m
    result: dict[str, Any] = {"shape": list(SHAPE)}
    for width, label in ((64, ""), (NARROW, f", {NARROW} bits")):
        for kernels in (limbs, compiled):
            seconds = best(lambda kernels=kernels, width=width: kernels.matmul(a, b, width), repeat)
            result[kernels.name + label] = {"seconds": round(seconds, 4), "gmacs": round(macs / seconds / 1e9, 2)}
        slow, fast = (result[kernels.name + label]["seconds"] for kernels in (limbs, compiled))
        result["ratio" + label] = round(slow / fast, 2)
    return result


def verbs(count: int, repeat: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    fixed = FixedPoint()
    x, y = (np.round(rng.uniform(-30, 30, count) * 2.0**16) / 2.0**16 for _ in range(2))
    w = np.round(rng.uniform(-1, 1, (256, 256)) * 2.0**16) / 2.0**16
    square = x[: 256 * 256].reshape(256, 256)
    harmonics = 20
    series = Series(6, (0.1, *(1.0 / k**2 for k in range(1, harmonics + 1))), (0.0,) * (harmonics + 1), linear=0.5)
    cases: dict[str, tuple[Callable[..., Any], list[np.ndarray], np.ndarray]] = {
        "truncation": (lambda s, a: s.settle(a * 0.37)[0], [x], x * (round(0.37 * 2**17) / 2**17)),
        "product": (lambda s, a, b: s.mul(a, b), [x, y], x * y),
        "square": (lambda s, a: s.square(a), [x], x * x),
        "matrix product": (lambda s, a, b: s.matmul(a, b), [square, w], square @ w),
        f"series, {harmonics} harmonics": (lambda s, a: s.series(a, [series])[0], [x], series(x)),
        "less": (lambda s, a: s.less(a, [1.0], bound=32.0)[0], [x], (x < 1.0).astype(float)),
        "relu": (lambda s, a: s.relu(a, bound=32.0), [x], np.maximum(x, 0.0)),
        "maximum of 128": (
            lambda s, a: s.lift(s.maximum(a, -1, bound=32.0))[0],
            [x[: count // 128 * 128].reshape(-1, 128)], x[: count // 128 * 128].reshape(-1, 128).max(-1, keepdims=True),
        ),
    }
    world = World(backend="numpy", fixed=fixed)
    results = {}
    for name, (verb, inputs, expected) in cases.items():
        halves = []
        for value in inputs:
            mask = rng.integers(0, 2**64, value.shape, dtype=np.uint64)
            halves.append((encode(value, fixed.frac) - mask, mask))
        own, other = [h[0] for h in halves], [h[1] for h in halves]

        def answer(s: Any, shares: list[np.ndarray], verb: Callable[..., Any] = verb) -> Any:
            return s.reveal(verb(s, *map(s.accept, shares)), CLIENT)

        def bare(s: Any, shares: list[np.ndarray], verb: Callable[..., Any] = verb) -> None:
            verb(s, *map(s.accept, shares))

        outcome = world.run(answer, own, other)
        got = decode(outcome.results[0] + outcome.results[1], fixed.frac)
        error = float(np.abs(got - expected).max()) * 2**fixed.frac
        plan = world.recorder.record(bare, own)
        again = partial(world.run, bare, own, other, plan=plan)
        seconds = best(again, repeat)
        size = int(np.prod(expected.shape)) if name == "matrix product" else inputs[0].size
        results[name] = {
            "elements": size, "error_ulp": round(error, 3), "seconds": round(seconds, 4), "rounds": plan.rounds,
            "bytes_sent_per_party_and_element": round(plan.bytes / 2 / size, 2),
            "dealer_bytes_per_element": round(plan.dealer_bytes / size, 2),
        }
        print(f"{name:<24}{results[name]}")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10**6)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    products = matrix_products(args.repeat)
    print(products)
    record("ops", {"matrix_product_one_core": products, "verbs": verbs(args.count, args.repeat)})


if __name__ == "__main__":
    main()
