"""How far the protocols' functions are from the exact ones, over the whole of their stated domains.

    python bench/functions.py [--secure] [--only WORD...] [--out bench/results/functions.json]

Each row is a function on a domain. The twin's error is the error of the approximation itself. With --secure, two
parties also compute the function on shares; the row then has their error against the exact function, the rounds, and
the bytes per element: of both directions together, and of dealer corrections. If a stated bound is missed, the exit
status is 1. With --only, the other rows of the results stay as they are.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secformer.mpc.fixed import encode
from secformer.mpc.session import Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World
from secformer.protocols import reciprocal, rsqrt
from secformer.protocols.activations import RELU
from secformer.protocols.exp import exp
from secformer.protocols.gates import GELU_NEW, QUICK_GELU, SILU, gelu_new_exact, quick_gelu_exact, silu_exact
from secformer.protocols.gelu import gelu_exact, gelu_segmented, gelu_series
from secformer.protocols.layernorm import layernorm_exact, layernorm_goldschmidt, layernorm_series
from secformer.protocols.quantities import QUAD_SHIFT
from secformer.protocols.ranges import Range
from secformer.protocols.softmax import softmax_2quad, softmax_exact, softmax_series
from secformer.protocols.tanh import tanh

Array = np.ndarray
PENDING = 32  # fractional bits of a linear layer's output, on which element-wise functions run
WIDTHS = {PENDING: 48, 16: 64}  # a pending product is right modulo 2^48
POINTS = 40_001


@dataclass(frozen=True)
class Case:
    """A protocol on inputs that cover its domain. Errors are divided by |exact| where `relative`."""

    name: str
    domain: str
    bound: float
    program: Callable[..., Share]
    inputs: tuple[Array, ...]
    fracs: tuple[int, ...]
    exact: Array
    relative: bool = False
    scale: float = 1.0  # the protocol returns the function times this


@dataclass(frozen=True)
class Row:
    """What was measured for a case."""

    name: str
    domain: str
    bound: float
    relative: bool
    twin_max: float
    twin_mean: float
    secure_max: float | None = None
    secure_mean: float | None = None
    rounds: int | None = None
    bytes_an_element: float | None = None
    dealer_bytes_an_element: float | None = None

    @property
    def holds(self) -> bool:
        return max(self.twin_max, self.secure_max or 0.0) <= self.bound


def elementwise() -> Iterator[Case]:
    for low, high in ((-4, 4), (-12, 12), (-26, 26), (-17, 25), (-50, 50), (-300, 300)):
        at = {"input": Range(low, high)}
        x = np.linspace(low, high, POINTS)
        for fn, bound in ((gelu_series, 2e-4), (gelu_segmented, 2e-2)):
            yield Case(fn.__name__, f"[{low}, {high}]", bound, lambda s, x, fn=fn, at=at: fn(s, x, at), (x,),
                       (PENDING,), gelu_exact(x))
    for low, high in ((-4, 4), (-12, 12), (-17, 25), (-50, 50), (-300, 300)):
        at = {"input": Range(low, high)}
        x = np.linspace(low, high, POINTS)
        for further, exact in ((SILU, silu_exact), (GELU_NEW, gelu_new_exact), (QUICK_GELU, quick_gelu_exact),
                               (RELU, lambda v: np.maximum(v, 0.0))):
            yield Case(further.name, f"[{low}, {high}]", 2e-4,
                       lambda s, x, fn=further.protocol, at=at: fn(s, x, at), (x,), (PENDING,), exact(x))
    for reach in (3, 8, 20, 100):
        at = {"input": Range(-reach, reach)}
        x = np.linspace(-reach, reach, POINTS)
        yield Case("tanh", f"[-{reach}, {reach}]", 1e-4, lambda s, x, at=at: tanh(s, x, at), (x,), (PENDING,),
                   np.tanh(x))
    for low in (-8, -16, -40, -64, -125, -200, -500):
        domain = Range(low, 0.25)
        x = np.linspace(low, 0.25, POINTS)
        yield Case("exp", f"[{low}, 0.25]", 5e-5, lambda s, x, d=domain: exp(s, x, d, scale_bits=4), (x,), (PENDING,),
                   np.exp(x), scale=16.0)


def rowwise() -> Iterator[Case]:
    for low, high in ((0.9, 18.0), (0.9, 145.0), (0.9, 580.0), (5.0, 9995.0), (0.5, 16000.0)):
        y = np.geomspace(low, high, 4001)[:, None]
        domain, j = Range(low, high), int(np.ceil(np.log2(high))) + 3
        eta, n = reciprocal.deflation(domain)
        yield Case("reciprocal_series", f"[{low:g}, {high:g}]", 2e-4,
                   lambda s, y, d=domain, j=j: reciprocal.reciprocal_series(s, y, d, scale_bits=j), (y,), (16,),
                   1.0 / y, True, 2.0**j)
        yield Case("reciprocal_goldschmidt", f"[{low:g}, {high:g}], eta {eta:.4g}, {n} iterations", 1e-3,
                   lambda s, y, j=j, eta=eta, n=n: reciprocal.reciprocal_goldschmidt(
                       s, y, eta=eta, iterations=n, scale_bits=j), (y,), (16,), 1.0 / y, True, 2.0**j)
    for low, high in ((0.1, 2.0), (0.1, 20.0), (0.1, 100.0), (0.2, 5000.0), (2.0, 5880.0)):
        v = np.geomspace(low, high, 4001)[:, None]
        domain, j = Range(low, high), int(np.ceil(np.log2(high) / 2)) + 5
        eta, n = rsqrt.deflation(domain)
        yield Case("rsqrt_series", f"[{low:g}, {high:g}]", 1e-4,
                   lambda s, v, d=domain, j=j: rsqrt.rsqrt_series(s, v, d, scale_bits=j), (v,), (PENDING,),
                   v**-0.5, True, 2.0**j)
        yield Case("rsqrt_goldschmidt", f"[{low:g}, {high:g}], eta {eta:.4g}, {n} iterations", 1e-3,
                   lambda s, v, d=domain, j=j, eta=eta, n=n: rsqrt.rsqrt_goldschmidt(
                       s, v, d, eta=eta, iterations=n, scale_bits=j), (v,), (PENDING,), v**-0.5, True, 2.0**j)


def composed() -> Iterator[Case]:
    rng = np.random.default_rng(1)
    for t, spread in ((1, 1.0), (16, 2.0), (128, 2.0), (128, 10.0), (384, 2.0)):
        scores, values = spread * rng.normal(size=(1, 4, t, t)), rng.normal(size=(1, 4, t, 32))
        mask = np.ones((1, t), dtype=bool)
        below = scores - scores.max(axis=-1, keepdims=True)
        sums = np.exp(below).sum(axis=-1)
        at = {"value": Range(values.min(), values.max()), "score": Range(scores.min(), scores.max()),
              "spread": Range(below.min(), 0.0), "exp_sum": Range(sums.min(), sums.max())}
        name = f"T = {t}, scores to {np.abs(scores).max():.0f}"
        yield Case("softmax_series @ V", name, 1e-3, lambda s, x, v, m=mask, at=at: softmax_series(s, x, v, m, at),
                   (scores, values), (PENDING, 16), softmax_exact(scores, mask) @ values)
        total = ((scores + QUAD_SHIFT) ** 2).sum(axis=-1)
        at = {"value": at["value"], "score": at["score"], "quad_sum": Range(total.min() / 1.5, total.max() * 1.5)}
        weights = (scores + QUAD_SHIFT) ** 2 / total[..., None]
        yield Case("softmax_2quad @ V", name, 1e-3, lambda s, x, v, m=mask, at=at: softmax_2quad(s, x, v, m, at),
                   (scores, values), (PENDING, 16), weights @ values)
    for c, low, high in ((128, 0.3, 3.0), (384, 0.003, 0.03), (384, 0.1, 130.0), (768, 0.3, 3.0), (1024, 0.3, 30.0)):
        rows = 64
        x = rng.normal(size=(rows, c)) * np.geomspace(low, high, rows)[:, None] ** 0.5 + rng.normal(size=(rows, 1))
        gamma, beta = rng.uniform(0.5, 1.5, c), rng.normal(size=c)
        variance = x.var(axis=-1)
        at = {"input": Range(x.min(), x.max()), "gain": Range(2.0, 2.0),
              "variance": Range(variance.min() / 1.5, variance.max() * 1.5)}
        exact = layernorm_exact(x, 1e-12) * gamma + beta
        for fn in (layernorm_series, layernorm_goldschmidt):
            yield Case(fn.__name__, f"C = {c}, variance [{low:g}, {high:g}]", 1e-3,
                       lambda s, x, g, b, fn=fn, at=at: fn(s, x, g, b, 1e-12, at), (x, gamma, beta), (PENDING, 16, 16),
                       exact)


def measure(case: Case, world: World | None) -> Row:
    s = PlainSession()
    twin = case.program(s, *(s.accept(x, frac=f) for x, f in zip(case.inputs, case.fracs, strict=True))).data
    row = Row(case.name, case.domain, case.bound, case.relative, *_errors(case, twin))
    if world is None:
        return row
    halves = [split(x, f) for x, f in zip(case.inputs, case.fracs, strict=True)]

    def program(s: Session, words: Sequence[Array]) -> Any:
        shares = (s.accept(w, frac=f, width=WIDTHS[f]) for w, f in zip(words, case.fracs, strict=True))
        (y,) = s.lift(case.program(s, *shares))
        return s.reveal(y, 0)

    outcome = world.run(program, [h[0] for h in halves], [h[1] for h in halves])
    most, mean = _errors(case, outcome.results[0])
    plan = outcome.plan
    size = case.exact.size
    return Row(**{**asdict(row), "secure_max": most, "secure_mean": mean, "rounds": plan.rounds - 1,
                  "bytes_an_element": round(plan.bytes / size - 8, 1),
                  "dealer_bytes_an_element": round(sum(k.corrections for k in plan.kinds) / size, 1)})


def _errors(case: Case, got: Array) -> tuple[float, float]:
    wrong = np.abs(got / case.scale - case.exact)
    wrong = wrong / np.abs(case.exact) if case.relative else wrong
    return float(wrong.max()), float(wrong.mean())


def split(x: Array, frac: int) -> tuple[Array, Array]:
    words = encode(x, frac)
    first = np.random.default_rng(2).integers(0, 2**64, x.shape, dtype=np.uint64)
    return first, words - first


def stored(path: Path) -> list[Row]:
    """The rows of an earlier run; none where there was no run."""
    return [Row(**row) for row in json.loads(path.read_text("utf-8"))["functions"]] if path.is_file() else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secure", action="store_true", help="also compute on shares")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="only functions of these names")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "functions.json")
    args = parser.parse_args()
    world = World(backend="numpy") if args.secure else None
    cases = [*elementwise(), *rowwise(), *composed()]
    measured = {case.name for case in cases if args.only is None or case.name in args.only}
    if not measured:
        parser.error(f"--only takes names among {', '.join(dict.fromkeys(case.name for case in cases))}")
    kept = {} if args.only is None else {(row.name, row.domain): row for row in stored(args.out)}
    rows = []
    print(f"{'function':<24}{'domain':<42}{'twin max':>10}{'secure max':>12}{'rounds':>8}{'B/elem':>8}{'dealer':>9}")
    for case in cases:
        if case.name not in measured:
            rows += [kept[case.name, case.domain]] if (case.name, case.domain) in kept else []
            continue
        row = measure(case, world)
        rows.append(row)
        secure = (f"{row.secure_max:12.1e}{row.rounds:8d}{row.bytes_an_element:8.0f}{row.dealer_bytes_an_element:9.0f}"
                  if row.secure_max is not None else "")
        print(f"{row.name:<24}{row.domain:<42}{row.twin_max:10.1e}{secure}{'' if row.holds else '   MISSED'}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"machine": platform.machine(), "numpy": np.__version__, "secure": args.secure,
             "functions": [asdict(row) for row in rows]}
    args.out.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    missed = [row for row in rows if not row.holds]
    if missed:
        print(f"{len(missed)} bound(s) missed", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
