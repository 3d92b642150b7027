"""Where which recipe wins: predicted online seconds over latency and bandwidth, from a recorded comparison.

    python bench/bert.py --shape base --tokens 128 --recipe all
    python bench/network.py bench/results/comparison-base-128.json

The prediction is measured online compute (all roles in one process), plus the latency times the rounds, plus each
direction's bytes at the bandwidth. The picture has two maps: the fastest recipe among those that keep an unmodified
checkpoint's answers and among all, and the ratio of two recipes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pictures import FIGURES, canvas, colour, save
from report import RESULTS, record

from secformer.models.networks import LAN, NETWORKS, WAN, Network
from secformer.mpc.meter import Cost
from secformer.protocols.recipes import recipe_named

LATENCIES = np.geomspace(2e-5, 0.2, 121)   # s, that a round waits
BANDWIDTHS = np.geomspace(1e7, 1e11, 121)  # bit/s
PAIR = "puma", "secformer"                 # whose ratio the last map has: the paper's headline
LEVELS = (0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.56, 5.0)


def cost_of(row: Mapping[str, Any]) -> Cost:
    return Cost(row["recipe"], seconds=row["online_seconds"], bytes=row["online_bytes_both_directions"],
                rounds=row["rounds"])


def surface(cost: Cost) -> np.ndarray:
    """Predicted seconds, (latencies, bandwidths)."""
    return np.array([[Network("", t, b).online(cost) for b in BANDWIDTHS] for t in LATENCIES])


def winners(surfaces: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Index into names of the least, (latencies, bandwidths)."""
    return np.argmin([surfaces[name] for name in names], axis=0)


def winning(surfaces: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Names of the fastest, (latencies, bandwidths)."""
    return np.array(names)[winners(surfaces, names)]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a == b).all())


def summary(surfaces: Mapping[str, np.ndarray], costs: Mapping[str, Cost], names: Sequence[str]) -> dict[str, Any]:
    best = winners(surfaces, names)
    return {
        "recipes": list(names),
        "share_of_the_map_won": {name: round(float((best == i).mean()), 3) for i, name in enumerate(names)},
        "seconds": {n.name: {name: round(n.online(costs[name]), 3) for name in names} for n in NETWORKS},
    }


def draw(name: str, source: str, surfaces: Mapping[str, np.ndarray], groups: Mapping[str, Sequence[str]],
         folder: Path) -> Path:
    from matplotlib.colors import ListedColormap, TwoSlopeNorm
    from matplotlib.patches import Patch

    pair = all(name in surfaces for name in PAIR)
    figure, panels = canvas(len(groups) + pair, width=5.0, height=4.6,
                            title=f"Predicted online time over the network, {source}")
    for panel, (title, names) in zip(panels, groups.items(), strict=False):
        best = winners(surfaces, names)
        won = [i for i in range(len(names)) if (best == i).any()]
        index = np.searchsorted(won, best)
        panel.pcolormesh(BANDWIDTHS, LATENCIES * 1e3, index, cmap=ListedColormap([colour(names[i]) for i in won]),
                         vmin=-0.5, vmax=len(won) - 0.5, alpha=0.75, shading="nearest")
        fastest = np.min([surfaces[name] for name in names], axis=0)
        lines = panel.contour(BANDWIDTHS, LATENCIES * 1e3, fastest, levels=[2, 5, 10, 30, 100, 300], colors="black",
                              linewidths=0.7)
        panel.clabel(lines, fmt=lambda v: f"{v:g} s", fontsize=8)
        panel.legend(handles=[Patch(color=colour(names[i]), alpha=0.75, label=names[i]) for i in won],
                     loc="lower left", fontsize=8, title="fastest")
        panel.set_title(title, fontsize=10)
    if pair:
        slow, fast = PAIR
        ratio = surfaces[slow] / surfaces[fast]
        shades = panels[-1].contourf(BANDWIDTHS, LATENCIES * 1e3, ratio, levels=LEVELS, cmap="PuOr", extend="both",
                                      norm=TwoSlopeNorm(1.0, LEVELS[0], LEVELS[-1]))
        lines = panels[-1].contour(BANDWIDTHS, LATENCIES * 1e3, ratio, levels=LEVELS, colors="black", linewidths=0.5)
        panels[-1].clabel(lines, fmt="%g", fontsize=8)
        figure.colorbar(shades, ax=panels[-1], label=f"seconds of {slow} / seconds of {fast}")
        panels[-1].set_title(f"how many times faster is {fast} than {slow}?", fontsize=10)
    for panel in panels:
        for network in (LAN, WAN):
            panel.plot(network.bandwidth, network.latency * 1e3, "k*", markersize=9)
            panel.annotate(network.name, (network.bandwidth, network.latency * 1e3), xytext=(6, 5),
                           textcoords="offset points", fontsize=9)
        panel.set(xscale="log", yscale="log", xlabel="bandwidth, bit/s each way", ylabel="latency, ms a round")
    return save(figure, name, folder)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, nargs="?", default=RESULTS / "comparison-base-128.json",
                        help="what bench/bert.py recorded for several recipes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    if not args.comparison.is_file():
        print(f"{args.comparison} is not there; run bench/bert.py with several recipes first", file=sys.stderr)
        return 1
    compared = json.loads(args.comparison.read_text("utf-8"))
    rows = compared["rows"]
    costs = {name: cost_of(row) for name, row in rows.items()}
    surfaces = {name: surface(cost) for name, cost in costs.items()}
    kept = [name for name in rows if recipe_named(name).ordinary]
    groups = {"recipes for any checkpoint": kept, "all recipes": list(rows)}
    groups = {title: names for title, names in groups.items() if names}
    if len(groups) == 2 and same(*(winning(surfaces, names) for names in groups.values())):
        groups = {"all recipes": list(rows)}  # students win nowhere
    facts = {title: summary(surfaces, costs, names) for title, names in groups.items()}
    name = f"network-{args.comparison.stem.removeprefix('comparison-')}"
    record(name, {"from": args.comparison.name, **facts}, args.out)
    source = f"BERT of the shape {compared['shape']}, {compared['tokens']} tokens"
    draw(name, source, surfaces, groups, FIGURES if args.out == RESULTS else args.out)
    print(json.dumps(facts, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
