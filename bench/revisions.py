"""Two revisions of this repository on one machine, in turns: BERT's seconds, rounds and bytes, and their ratios.

    git worktree add ../before REVISION
    python bench/revisions.py ../before --shape base --tokens 128,512 --recipe faithful,secformer --turns 2

Every turn runs bench/bert.py of the other checkout and then of this one, each with its own code, on the same random
weights, with the guard that is the default there. Each answer is verified by its own bench before it is timed. The
fastest run of all turns counts, as other work only adds time. Rounds of a layer are those of layer 0.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from report import record

HERE = Path(__file__).resolve().parents[1]
COUNTS = ("online_bytes_both_directions", "rounds", "rounds_per_layer", "dealer_bytes")  # the same in every run
TIMES = ("seconds_all_roles", "processor_seconds_all_roles", "online_seconds", "peak_memory_bytes")


def measured(checkout: Path, shape: str, tokens: int, recipe: str, more: list[str]) -> dict[str, Any]:
    """One row of that checkout's bench/bert.py. Raises SystemExit where it measured nothing."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, str(checkout / "bench/bert.py"), "--shape", shape, "--tokens", str(tokens),
                   "--recipe", recipe, "--out", out, *more]
        subprocess.run(command, check=False, cwd=out, env=os.environ | {"PYTHONPATH": str(checkout)},
                       stdout=subprocess.DEVNULL)
        found = sorted(Path(out).glob(f"bert-{shape}-{tokens}-{recipe}*.json"))
        if not found:
            raise SystemExit(f"{checkout}: bench/bert.py measured nothing for {recipe} at {tokens} tokens")
        row: dict[str, Any] = json.loads(found[0].read_text("utf-8"))
        return row


def both(args: argparse.Namespace, tokens: int, recipe: str) -> dict[str, Any]:
    """Both revisions' figures, and new over old."""
    more = ["--repeat", str(args.repeat), *(["--layers", str(args.layers)] if args.layers else [])]
    rows: dict[str, list[dict[str, Any]]] = {"before": [], "now": []}
    for _ in range(args.turns):
        for name, checkout in (("before", args.before), ("now", HERE)):
            rows[name].append(measured(checkout, args.shape, tokens, recipe, more))
            print(f"{recipe}, {tokens} tokens, {name}: {rows[name][-1]['seconds_all_roles']} s", file=sys.stderr)
    found = {name: {key: each[0][key] for key in COUNTS} | {key: min(row[key] for row in each) for key in TIMES}
             | {"error_to_twin": max(row["error_to_twin"] for row in each), "commit": each[0]["machine"]["commit"],
                "kernels": each[0]["kernels"]} for name, each in rows.items()}
    ratios = {key: round(found["now"][key] / found["before"][key], 3) for key in (*COUNTS, *TIMES)}
    return found | {"now_over_before": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout of the other revision")
    parser.add_argument("--shape", default="base")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--tokens", default="128")
    parser.add_argument("--recipe", default="faithful")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=2)
    args = parser.parse_args()
    args.before = args.before.resolve()
    found = {f"{recipe}-{tokens}": both(args, tokens, recipe)
             for tokens in map(int, args.tokens.split(",")) for recipe in args.recipe.split(",")}
    print(json.dumps(found, indent=1))
    record(f"revisions-{args.shape}{f'-{args.layers}layers' if args.layers else ''}",
           {"shape": args.shape, "turns": args.turns, "repeat": args.repeat, "rows": found})


if __name__ == "__main__":
    main()
