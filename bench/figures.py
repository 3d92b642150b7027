"""Figures 5 to 9 of the SecFormer paper, on this engine: errors and costs of the functions of each recipe.

    python bench/figures.py [--only gelu,softmax,layernorm,division,inverse-root]

There is one picture per function. It shows the error on shares against float64, over the stated domain; and, over the
input's size, the seconds of all three roles (online and offline, in this process) and the online bytes. The JSON has
the largest and the mean error, of the twin and on shares. Every recipe is compared with exact softmax. The errors of
2Quad and 2ReLU are therefore large, as expected: models are distilled for these functions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from functions import PENDING, WIDTHS, Array, split
from pictures import FIGURES, canvas, look, marker, plain_ticks, save
from report import RESULTS, record

from secformer.models.ranges.observe import observed
from secformer.models.ranges.profile import MARGIN, Probe, probe
from secformer.mpc.errors import SecformerError
from secformer.mpc.session import Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World
from secformer.protocols import newton, octaves, reciprocal, rsqrt
from secformer.protocols.gelu import gelu_exact
from secformer.protocols.layernorm import layernorm_exact
from secformer.protocols.ranges import Range
from secformer.protocols.recipes import EXACT, RECIPES, Recipe
from secformer.protocols.softmax import softmax_exact

Program = Callable[..., Share]
BINS = 120
TINY = 1e-7


@dataclass(frozen=True)
class Contender:
    """A recipe's function on shares; it returns the function times `scale`."""

    name: str
    program: Program
    scale: float = 1.0


@dataclass(frozen=True)
class Sample:
    """Inputs of a function, with the fractional bits that it is given, and the exact results."""

    inputs: tuple[Array, ...]
    fracs: tuple[int, ...]
    exact: Array


@dataclass(frozen=True)
class Figure:
    """A function: its domain in words, a sample that covers the domain, with the horizontal place of every result, and
    samples of any size, counted in `unit`."""

    name: str
    title: str
    domain: str
    across: str
    unit: str
    relative: bool
    logarithmic: bool
    sample: Sample
    places: Array
    sizes: tuple[int, ...]
    sized: Callable[[int], Sample]
    contenders: Callable[[Sample], list[Contender]]


def recipes() -> list[Recipe]:
    return [r for r in RECIPES.values() if r is not EXACT]


# ---- the five functions ----------------------------------------------------------------------------------------------


def gelu() -> Figure:
    reach = 10.0

    def contenders(sample: Sample) -> list[Contender]:
        at = {"input": Range(-reach, reach)}
        return [Contender(r.name, lambda s, x, r=r: r.gelu(s, x, at)) for r in recipes()]

    def sized(n: int) -> Sample:
        x = np.linspace(-reach, reach, n)
        return Sample((x,), (PENDING,), gelu_exact(x))

    sample = sized(20_001)
    return Figure("gelu", "GeLU", f"x in [-{reach:g}, {reach:g}]", "x", "elements", False, False, sample,
                  sample.inputs[0], (1 << 12, 1 << 14, 1 << 16, 1 << 18), sized, contenders)


def softmax() -> Figure:
    """Softmax weights (the values are the identity), on rows of growing spread."""
    heads = 12

    def sample_of(t: int, spreads: Array, values: Array, heads: int) -> Sample:
        rng = np.random.default_rng(1)
        scores = spreads * rng.normal(size=(1, heads, t, t))
        return Sample((scores, values), (PENDING, 16), softmax_exact(scores, np.ones((1, t), dtype=bool)) @ values)

    def contenders(sample: Sample) -> list[Contender]:
        scores, values = sample.inputs
        mask = np.ones((1, scores.shape[-1]), dtype=bool)
        found = []
        for r in recipes():
            at = ranges(r, lambda r, s, probe: r.softmax(s, s.accept(scores), s.accept(values), mask, probe))
            found.append(Contender(r.name, lambda s, x, v, r=r, at=at: r.softmax(s, x, v, mask, at)))
        return found

    def sized(t: int) -> Sample:
        return sample_of(t, np.full((1, heads, t, 1), 1.0), np.random.default_rng(2).normal(size=(1, heads, t, 64)),
                         heads)

    t = 64
    spreads = np.geomspace(0.1, 4.0, 12 * t).reshape(1, 12, t, 1)
    sample = sample_of(t, spreads, np.broadcast_to(np.eye(t), (1, 12, t, t)), 12)
    reach = np.abs(sample.inputs[0]).max(axis=-1, keepdims=True)
    return Figure("softmax", "softmax", f"weights of rows of {t} scores up to {reach.max():.0f} in absolute value",
                  "largest |score| of the row", f"tokens ({heads} heads, 64 values each)", False, True, sample,
                  np.broadcast_to(reach, sample.exact.shape), (32, 64, 128, 256), sized, contenders)


def layernorm() -> Figure:
    channels, low, high = 768, 0.05, 20.0

    def sample_of(variances: Array) -> Sample:
        rng = np.random.default_rng(3)
        x = rng.normal(size=(len(variances), channels))
        x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) * variances[:, None] ** 0.5
        gamma, beta = rng.uniform(0.5, 1.5, channels), rng.normal(size=channels)
        return Sample((x, gamma, beta), (PENDING, 16, 16), layernorm_exact(x, 1e-12) * gamma + beta)

    def contenders(sample: Sample) -> list[Contender]:
        at = {"input": Range(-32.0, 32.0), "gain": Range(2.0, 2.0), "variance": Range(low, high)}
        return [Contender(r.name, lambda s, x, g, b, r=r: r.layernorm(s, x, g, b, 1e-12, at)) for r in recipes()]

    variances = np.geomspace(low * 1.01, high * 0.99, 128)
    sample = sample_of(variances)
    return Figure("layernorm", "LayerNorm", f"rows of {channels} with variance in [{low:g}, {high:g}]",
                  "variance of the row", f"rows of {channels}", False, True, sample,
                  np.broadcast_to(variances[:, None], sample.exact.shape), (32, 128, 512),
                  lambda n: sample_of(np.geomspace(low * 1.01, high * 0.99, n)), contenders)


def division() -> Figure:
    """Reciprocals of softmax's row sums, one per row."""
    low, high, j = 1.0, 128.0, 10
    domain = Range(low, high)
    eta, n = reciprocal.deflation(domain)

    def goldschmidt(s: Session, y: Share, domain: Range, *, scale_bits: int) -> Share:
        return reciprocal.reciprocal_goldschmidt(s, y, eta=eta, iterations=n, scale_bits=scale_bits)

    def contenders(sample: Sample) -> list[Contender]:
        functions = {"faithful": reciprocal.reciprocal_series, "secformer": goldschmidt,
                     "puma": octaves.reciprocal_octaves, "crypten": newton.reciprocal_newton}
        return [Contender(name, lambda s, y, f=f: f(s, y, domain, scale_bits=j), 2.0**j)
                for name, f in functions.items()]

    return rows("division", "1/y, one a row", f"y in [{low:g}, {high:g}]", "y", low, high, 16, lambda y: 1.0 / y,
                contenders)


def inverse_root() -> Figure:
    low, high, j = 0.1, 20.0, 8
    domain = Range(low, high)
    eta, n = rsqrt.deflation(domain)

    def goldschmidt(s: Session, v: Share, domain: Range, *, scale_bits: int) -> Share:
        return rsqrt.rsqrt_goldschmidt(s, v, domain, eta=eta, iterations=n, scale_bits=scale_bits)

    def contenders(sample: Sample) -> list[Contender]:
        functions = {"faithful": rsqrt.rsqrt_series, "secformer": goldschmidt, "puma": octaves.rsqrt_octaves,
                     "crypten": newton.rsqrt_newton}
        return [Contender(name, lambda s, v, f=f: f(s, v, domain, scale_bits=j), 2.0**j)
                for name, f in functions.items()]

    return rows("inverse-root", "1/sqrt(v), one a row", f"v in [{low:g}, {high:g}]", "v", low, high, PENDING,
                lambda v: v**-0.5, contenders)


def rows(name: str, title: str, domain: str, across: str, low: float, high: float, frac: int,
         exact: Callable[[Array], Array], contenders: Callable[[Sample], list[Contender]]) -> Figure:
    def sized(n: int) -> Sample:
        y = np.geomspace(low, high, n)[:, None]
        return Sample((y,), (frac,), exact(y))

    sample = sized(8001)
    return Figure(name, title, domain, across, "rows", True, True, sample, sample.inputs[0],
                  (1 << 8, 1 << 11, 1 << 14), sized, contenders)


FIGURES_OF: Mapping[str, Callable[[], Figure]] = {
    "gelu": gelu, "softmax": softmax, "layernorm": layernorm, "division": division, "inverse-root": inverse_root,
}


def ranges(recipe: Recipe, run: Callable[[Recipe, Session, Probe], Any]) -> Mapping[str, Range]:
    """The ranges that a model's range profile would state for these inputs."""
    at = Probe(MARGIN)
    run(observed(recipe, np, probe), PlainSession(strict=False), at)
    return at.widened


# ---- measuring -------------------------------------------------------------------------------------------------------


def errors(figure: Figure, contender: Contender, world: World) -> dict[str, Any]:
    """Largest and mean errors of the twin and on shares, and the largest on shares per bin of the domain."""
    sample = figure.sample
    s = PlainSession()
    twin = contender.program(s, *(s.accept(x, frac=f) for x, f in zip(sample.inputs, sample.fracs, strict=True))).data
    secure = on_shares(contender, sample, world)
    wrong = {}
    for name, got in (("twin", twin), ("secure", secure)):
        off = np.abs(got / contender.scale - sample.exact)
        wrong[name] = off / np.abs(sample.exact) if figure.relative else off
    x = figure.places.reshape(-1)
    ends = (np.geomspace if figure.logarithmic else np.linspace)(x.min(), x.max() * (1 + 1e-9), BINS + 1)
    place = np.clip(np.searchsorted(ends, x, side="right") - 1, 0, BINS - 1)
    most = np.zeros(BINS)
    np.maximum.at(most, place, wrong["secure"].reshape(-1))
    filled = np.bincount(place, minlength=BINS) > 0
    middle = (np.sqrt(ends[:-1] * ends[1:]) if figure.logarithmic else (ends[:-1] + ends[1:]) / 2)[filled]
    return {
        **{f"{name}_{kind}": float(f"{fn(w):.3g}") for name, w in wrong.items()
           for kind, fn in (("max", np.max), ("mean", np.mean))},
        "across": [float(f"{v:.4g}") for v in middle], "largest": [float(f"{v:.3g}") for v in most[filled]],
    }


def on_shares(contender: Contender, sample: Sample, world: World) -> Array:
    def program(s: Session, words: Sequence[Array]) -> Any:
        shares = (s.accept(w, frac=f, width=WIDTHS[f]) for w, f in zip(words, sample.fracs, strict=True))
        (y,) = s.lift(contender.program(s, *shares))
        return s.reveal(y, 0)

    halves = [split(x, f) for x, f in zip(sample.inputs, sample.fracs, strict=True)]
    return np.asarray(world.run(program, [h[0] for h in halves], [h[1] for h in halves]).results[0])


def cost(contender: Contender, sample: Sample, world: World, repeat: int) -> dict[str, Any]:
    def program(s: Session, words: Sequence[Array]) -> None:
        contender.program(s, *(s.accept(w, frac=f, width=WIDTHS[f])
                               for w, f in zip(words, sample.fracs, strict=True)))

    halves = [split(x, f) for x, f in zip(sample.inputs, sample.fracs, strict=True)]
    first, second = [h[0] for h in halves], [h[1] for h in halves]
    plan = world.recorder.record(program, first)
    costs = [world.run(program, first, second, plan=plan).cost for _ in range(repeat + 1)][1:]
    best = min(costs, key=lambda c: c.seconds + c.offline_seconds)  # other work on the machine can only add time
    return {"seconds": round(best.seconds, 5), "offline_seconds": round(best.offline_seconds, 5),
            "bytes": best.bytes, "rounds": best.rounds, "dealer_bytes": best.dealer_bytes}


def measure(figure: Figure, world: World, sizes: Sequence[int], repeat: int) -> dict[str, Any]:
    result: dict[str, Any] = {"title": figure.title, "domain": figure.domain, "relative": figure.relative,
                              "unit": figure.unit, "contenders": {}}
    samples = {n: figure.sized(n) for n in sizes}
    for contender in figure.contenders(figure.sample):
        try:
            result["contenders"][contender.name] = {"error": errors(figure, contender, world), "cost": {}}
        except SecformerError as error:
            result["contenders"][contender.name] = {"problem": str(error)}
            print(f"  {contender.name}: {error}")
    for n, sample in samples.items():
        for contender in figure.contenders(sample):
            row = result["contenders"].get(contender.name, {})
            if "cost" in row:
                row["cost"][n] = cost(contender, sample, world, repeat)
    for name, row in result["contenders"].items():
        if "cost" in row:
            e, most = row["error"], row["cost"][max(sizes)]
            print(f"  {name:<18}max {e['secure_max']:8.1e}  mean {e['secure_mean']:8.1e}  twin {e['twin_max']:8.1e}   "
                  f"{most['rounds']:3d} rounds  {most['bytes'] / 1e6:8.2f} MB  "
                  f"{most['seconds'] + most['offline_seconds']:7.3f} s")
    return result


def draw(name: str, figure: Figure, result: Mapping[str, Any], folder: Path) -> Path:
    kind = "relative error" if figure.relative else "error"
    picture, (error, seconds, traffic) = canvas(3, title=f"{figure.title} on shares: {figure.domain}")
    sizes: list[int] = []
    for contender, row in result["contenders"].items():
        if "cost" not in row:
            continue
        style = look(contender)
        error.plot(row["error"]["across"], np.maximum(row["error"]["largest"], TINY), **style)
        sizes, costs = list(row["cost"]), list(row["cost"].values())
        style["marker"] = marker(contender)
        seconds.plot(sizes, [c["seconds"] + c["offline_seconds"] for c in costs], **style)
        rounds = f"{contender}: {costs[-1]['rounds']} rounds"
        traffic.plot(sizes, [c["bytes"] / 1e6 for c in costs], label=rounds, **style)
    error.set(xlabel=figure.across, ylabel=f"largest {kind} against float64", yscale="log",
              xscale="log" if figure.logarithmic else "linear")
    seconds.set(xlabel=figure.unit, ylabel="seconds, all roles", xscale="log", yscale="log")
    traffic.set(xlabel=figure.unit, ylabel="MB online, both directions", xscale="log", yscale="log")
    for panel in (seconds, traffic):
        plain_ticks(panel.xaxis, list(sizes))
        plain_ticks(panel.yaxis)
    picture.legend(loc="outside lower center", ncols=6, fontsize=9)
    return save(picture, name, folder)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"functions, with commas between them: {','.join(FIGURES_OF)}")
    parser.add_argument("--largest", type=int, help="leave out larger sizes")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    world = World(backend="numpy")
    results = {}
    for name in args.only.split(",") if args.only else FIGURES_OF:
        figure = FIGURES_OF[name]()
        sizes = [n for n in figure.sizes if args.largest is None or n <= args.largest] or list(figure.sizes[:1])
        print(f"{figure.title}: {figure.domain}")
        results[name] = measure(figure, world, sizes, args.repeat)
        draw(name, figure, results[name], FIGURES if args.out == RESULTS else args.out)
    record("figures" if args.only is None else f"figures-{args.only.replace(',', '-')}", {"functions": results},
           args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
