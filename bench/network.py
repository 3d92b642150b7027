"""Where the seconds go over a network: each recipe's predicted online time by cause, from a recorded comparison.

    python bench/bert.py --shape base --tokens 128 --recipe all
    python bench/network.py bench/results/comparison-base-128.json

The predicted time is the sum of three causes: the measured online compute (all roles in one process), the latency times
the rounds, and one direction's bytes divided by the bandwidth. The picture stacks the three causes for a LAN and for a
WAN. Below these stand times that the authors of other systems published. Those were measured in other settings, and are
shown for orientation only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pictures import FIGURES, causes, save
from report import RESULTS, record

from secformer.models.run.networks import LAN, NETWORKS, Network
from secformer.mpc.meter import Cost

SHOWN = "faithful", "secformer", "puma", "crypten"  # recipes in the picture, from the top; the record has all recipes
COMPUTING, MOVING, WAITING = "computing", "moving bytes", "waiting for rounds"
NOTES = ("This engine. Computing: measured on two CPU cores, all roles in one process. Bytes and rounds: predicted.",
         "Published by the authors, on their own hardware and networks (scale of the LAN bars). Not like for like.")


@dataclass(frozen=True)
class Published:
    """A published time for BERT_BASE: seconds from `low` to `high`, and the setting in which it was measured."""

    system: str
    tokens: int
    low: float
    high: float
    setting: str
    source: str


PUBLISHED = (
    Published("SecFormer", 512, 19.513, 19.513, "2 parties and an assistant, three V100 servers",
              "Luo et al., Findings of ACL 2024, arXiv:2401.00793"),
    Published("SIGMA", 512, 7.7, 7.7, "2 parties on GPUs, function secret sharing", "Gupta et al., PoPETs 2024"),
    Published("FuseFSS", 512, 5.3, 5.3, "function secret sharing, public weights", "FuseFSS, 2026"),
    Published("PUMA", 128, 33.9, 33.9, "3 parties on CPUs, 5 Gbit/s", "Dong et al., 2023, arXiv:2307.12533"),
    Published("SIGMA", 128, 1.6, 1.8, "2 parties on GPUs, function secret sharing", "Gupta et al., PoPETs 2024"),
    Published("FuseFSS", 128, 1.15, 1.15, "function secret sharing, public weights", "FuseFSS, 2026"),
)


def cost_of(row: Mapping[str, Any]) -> Cost:
    return Cost(row["recipe"], seconds=row["online_seconds"], bytes=row["online_bytes_both_directions"],
                rounds=row["rounds"])


def seconds_of(cost: Cost, network: Network) -> dict[str, float]:
    """Predicted online seconds by cause, and in total."""
    parts = {COMPUTING: cost.seconds, MOVING: network.moving(cost), WAITING: network.waiting(cost)}
    return {name: round(value, 3) for name, value in (parts | {"online": network.online(cost)}).items()}


def draw(name: str, compared: Mapping[str, Any], found: Mapping[str, Any], folder: Path) -> Path:
    """Draws stacked bars per network, and published times of the same shape and length on the LAN's scale."""
    tokens, base = compared["tokens"], compared["shape"] == "base"
    shown = [recipe for recipe in SHOWN if recipe in found[LAN.name]]
    panels = {f"{n.name}: {n} per round": {recipe: found[n.name][recipe] for recipe in shown} for n in NETWORKS}
    others = [(p.system, p.low, p.high, p.setting) for p in PUBLISHED if base and p.tokens == tokens]
    title = f"BERT_BASE, {tokens} tokens" if base else f"BERT of the shape {compared['shape']}, {tokens} tokens"
    figure = causes(f"{title}: seconds to the answer", panels, (COMPUTING, MOVING, WAITING), others, NOTES)
    return save(figure, name, folder, dpi=150)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, nargs="?", default=RESULTS / "comparison-base-128.json",
                        help="a comparison that bench/bert.py recorded for several recipes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    if not args.comparison.is_file():
        print(f"{args.comparison} does not exist; run bench/bert.py with several recipes first", file=sys.stderr)
        return 1
    compared = json.loads(args.comparison.read_text("utf-8"))
    costs = {name: cost_of(row) for name, row in compared["rows"].items()}
    found = {n.name: {name: seconds_of(cost, n) for name, cost in costs.items()} for n in NETWORKS}
    name = f"network-{args.comparison.stem.removeprefix('comparison-')}"
    record(name, {"from": args.comparison.name, "networks": [str(n) for n in NETWORKS], "seconds": found}, args.out)
    draw(name, compared, found, FIGURES if args.out == RESULTS else args.out)
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
