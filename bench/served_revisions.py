"""Two revisions of this repository as served roles on one machine, request by request in turns: seconds and bytes.

    git worktree add ../before REVISION
    python bench/served_revisions.py ../before --shape base --tokens 128 --repeat 8

Both revisions' roles stay up, each with its own code, and one client each asks them in turns, so that other work on the
machine meets both alike. Every answer is verified against the model in plaintext before its time counts. The parties'
and the dealer's processor seconds are read from the system, which only Linux tells.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
LIMIT = 0.02  # what a newer revision may take more
WARM = 3      # requests before those that count: they open connections, compile, and teach the roles the shape
TICKS = os.sysconf("SC_CLK_TCK")


def spent(processes: Any) -> float:
    """Processor seconds of processes so far."""
    stats = [Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split() for process in processes]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / TICKS


def serve(folder: Path, shape: str, tokens: int) -> None:
    """Answers one request for every line of stdin, with what it took as a line of JSON. Runs in the other revision."""
    import numpy as np
    from bert import SHAPES, TOLERANCE, VOCAB, checkpoint

    from secformer import connect, plain_bert
    from secformer.roles.trial import LocalRoles

    (folder / "checkpoint").mkdir()
    checkpoint(folder / "checkpoint", *SHAPES[shape], 0)
    texts = {"input_ids": np.random.default_rng(0).integers(5, VOCAB, (1, tokens))}
    wanted = plain_bert(folder / "checkpoint", texts)
    with LocalRoles(folder / "served", folder / "checkpoint") as roles:
        roles.wait_ready(600.0)
        with connect(roles.settings("client")) as model:
            for _ in range(WARM):
                model.infer(texts)
            print("ready", flush=True)
            for _ in sys.stdin:
                before, started = spent(roles.processes.values()), time.perf_counter()
                out = model.infer(texts)
                seconds = time.perf_counter() - started
                error = float(np.abs(out.last_hidden_state - wanted.last_hidden_state).max())
                if not error <= TOLERANCE:
                    raise SystemExit(f"the answer is off by {error:.3g}: nothing is recorded")
                print(json.dumps({
                    "seconds": seconds, "processor_seconds": spent(roles.processes.values()) - before, "error": error,
                    "online_bytes": out.cost.bytes, "rounds": out.cost.rounds, "dealer_bytes": out.cost.dealer_bytes,
                }), flush=True)


def started(stack: contextlib.ExitStack, checkout: Path, args: argparse.Namespace) -> subprocess.Popen[str]:
    """A revision's roles and client, ready."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    process = stack.enter_context(subprocess.Popen(
        [sys.executable, __file__, "--serve", folder, "--shape", args.shape, "--tokens", str(args.tokens)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(checkout)},
        cwd=checkout))
    stack.callback(process.stdin.close)  # type: ignore[union-attr]
    if process.stdout.readline() != "ready\n":  # type: ignore[union-attr]
        raise SystemExit(f"{checkout}: its roles did not become ready")
    return process


def asked(process: subprocess.Popen[str]) -> dict[str, Any]:
    process.stdin.write("ask\n")  # type: ignore[union-attr]
    process.stdin.flush()  # type: ignore[union-attr]
    line = process.stdout.readline()  # type: ignore[union-attr]
    if not line:
        raise SystemExit("a revision's client ended: nothing is recorded")
    return dict(json.loads(line))


def compared(args: argparse.Namespace) -> dict[str, Any]:
    """What requests took in both revisions, and the ratios. Each pair of turns begins with the other one."""
    rows: dict[str, list[dict[str, Any]]] = {"before": [], "now": []}
    with contextlib.ExitStack() as stack:
        sides = {"before": started(stack, args.before.resolve(), args), "now": started(stack, HERE, args)}
        for turn in range(args.repeat):
            for name in (list(sides) if turn % 2 else list(reversed(sides))):
                rows[name].append(asked(sides[name]))
                print(f"{name}: {rows[name][-1]['seconds']:.2f} s, {rows[name][-1]['processor_seconds']:.2f} processor "
                      f"s", file=sys.stderr)
    pairs = list(zip(rows["before"], rows["now"], strict=True))
    ratios = {key: round(statistics.median(now[key] / before[key] for before, now in pairs), 4)
              for key in rows["now"][0] if key != "error"}
    ratios["all_bytes"] = round(total(rows["now"]) / total(rows["before"]), 6)
    return {"shape": args.shape, "tokens": args.tokens, **rows, "medians_of_now_over_before": ratios, "limit": LIMIT}


def total(rows: list[dict[str, Any]]) -> int:
    return int(rows[0]["online_bytes"] + rows[0]["dealer_bytes"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, nargs="?", help="a checkout of the other revision")
    parser.add_argument("--shape", default="base")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=8, help="requests of each revision")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        serve(args.serve, args.shape, args.tokens)
        return 0
    if args.before is None:
        parser.error("a checkout of the other revision is needed")
    from report import RESULTS, record

    result = compared(args)
    ratios = result["medians_of_now_over_before"]
    record(f"served-revisions-{args.shape}-{args.tokens}", result, args.out or RESULTS)
    print(f"now over before: {ratios['seconds']} of the seconds, {ratios['processor_seconds']} of the processor "
          f"seconds, {ratios['all_bytes']} of the bytes (limit {1 + LIMIT})")
    return 0 if max(ratios["seconds"], ratios["all_bytes"]) <= 1 + LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
