"""Kept connections to the dealer: seconds of a step of a served text, and of a live request, against another checkout.

    python bench/kept.py BEFORE [--turns 3] [--repeat 40] [--model FOLDER]

The two checkouts take turns, each with roles of its own as processes. Every request asks the dealer. BEFORE is a folder
with another revision of this package; --model is a chat model (default: a random Llama of one layer).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
WARM = 4  # calls before the clock counts
TEXT = "A wonderful film full of warmth and wit."


def seconds(call: Callable[[], object], repeat: int) -> float:
    """The median of a call, after some that are not counted."""
    taken = []
    for turn in range(WARM + repeat):
        started = time.perf_counter()
        call()
        if turn >= WARM:
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def one(model: Path | None, repeat: int) -> dict[str, float]:
    """The seconds of this process's own checkout."""
    sys.path.insert(0, str(HERE / "tests/labs"))
    from tiny_chat_lab import measured_chat

    from secformer import connect, demo_model
    from secformer.roles.trial import LocalRoles

    found = {}
    with tempfile.TemporaryDirectory() as name:
        at = Path(name)
        chat = model or measured_chat(at / "chat")
        for what, folder in (("step", chat), ("request", demo_model())):
            with LocalRoles(at / what, folder, settings={"threads": 1}) as roles:
                roles.wait_ready()
                with connect(roles.settings("client")) as served:
                    if what == "step":
                        text = served.decoding()
                        text.take(range(2, 10))
                        found[what] = seconds(lambda text=text: text.take([3]), repeat)
                    else:
                        found[what] = seconds(lambda served=served: served.infer(TEXT), repeat)
    return found


def other(checkout: Path, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, str(HERE / "bench/kept.py"), "--repeat", str(args.repeat),
               *(["--model", str(args.model)] if args.model else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(checkout)})
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, nargs="?")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=40)
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    if args.before is None:
        print(json.dumps(one(args.model, args.repeat)))
        return
    sys.path.insert(0, str(HERE / "bench"))
    from report import record

    pairs = [[other(checkout, args) for checkout in (args.before, HERE)] for _ in range(args.turns)]
    found = {what: {"before": statistics.median(pair[0][what] for pair in pairs),
                    "after": statistics.median(pair[1][what] for pair in pairs),
                    "ratio": statistics.median(pair[1][what] / pair[0][what] for pair in pairs)}
             for what in ("step", "request")}
    record("kept", {"pairs": pairs, "medians": found})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
