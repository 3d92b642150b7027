"""How much a request waits for a store that is being filled: requests while the filler works and while it may not.

    python bench/ahead.py [--pairs N]

The shipped model, all roles on this machine. Requests get their material from the dealer; each has a length of its
own. They come in pairs: one while party 1 writes runs of another shape, one while this script holds the store's lock,
as `secformer deal` does. Every answer is compared with the plaintext model's. Then the filler works alone, for its
rate and for what it costs each role. On machines of their own, the roles would not share processors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from report import RESULTS, record

from secformer import connect, demo_model, plain_bert
from secformer.mpc.dealer.locking import Lock
from secformer.mpc.dealer.store import writing
from secformer.mpc.errors import StoreError
from secformer.roles.trial import LocalRoles

FILLED = "A wonderful film."  # of the shape that is made ahead
SHORTEST = 12                 # words of the first question
SETTINGS = {"ahead_mb": 800, "ahead_requests": 100_000, "threads": 1}
ALONE = 6.0                   # seconds for which the filler is measured alone
PATIENCE = 30.0               # seconds until it must begin


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=26)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as at, LocalRoles(Path(at), demo_model(), settings=SETTINGS) as roles:
        roles.wait_ready()
        result = measured(roles, args.pairs)
    print(json.dumps(result, indent=1))
    record("ahead", result, args.out)
    return 0


def measured(roles: LocalRoles, pairs: int) -> dict[str, Any]:
    store = roles.role_folder("party1") / "store"
    quiet, filling, written = [], [], []
    with connect(roles.settings("client")) as model:
        for _ in range(3):
            model.infer(FILLED)
        words = iter(range(SHORTEST, SHORTEST + 2 * pairs))
        for pair in range(pairs):
            for busy in (True, False)[:: 1 if pair % 2 else -1]:
                if not busy:
                    with held(store):
                        quiet.append(asked(model, next(words), store)[0])
                    continue
                begin(store)
                seconds, came = asked(model, next(words), store)
                filling.append(seconds)
                written.append(came / seconds)
    begin(store)
    costs, before, started = cpu(roles), nbytes(store), time.perf_counter()
    time.sleep(ALONE)
    alone, rate = nbytes(store) - before, (nbytes(store) - before) / (time.perf_counter() - started)
    ratios = sorted(a / b for a, b in zip(filling, quiet, strict=True))
    return {
        "pairs": pairs, "seconds, quiet": statistics.median(quiet), "seconds, filling": statistics.median(filling),
        "slower, median of pairs": statistics.median(ratios), "slower, quartiles": statistics.quantiles(ratios),
        "MB/s written during requests": statistics.median(written) / 1e6, "MB/s written alone": rate / 1e6,
        "processor seconds per GB": {role: 1e9 * (seconds - costs[role]) / alone
                                     for role, seconds in cpu(roles).items()},
    }


def asked(model: Any, words: int, store: Path) -> tuple[float, int]:
    """Seconds of a request whose answer is the plaintext model's, and bytes by which the store grew meanwhile."""
    text, before, started = "a " * words, nbytes(store), time.perf_counter()
    out = model.infer(text)
    seconds, came = time.perf_counter() - started, nbytes(store) - before
    if np.abs(out.logits - plain_bert(demo_model(), text).logits).max() > 0.01:
        raise SystemExit("the answer is wrong")
    return seconds, came


def held(store: Path) -> Lock:
    """The store's lock, as soon as the filler has ended its piece."""
    while True:
        try:
            return writing(store)
        except StoreError:
            time.sleep(0.005)


def begin(store: Path) -> None:
    """Makes room in the store, and waits until the filler writes."""
    for path in store.glob("*-ahead.store"):
        path.unlink(missing_ok=True)
    end = time.monotonic() + PATIENCE
    while not any(store.glob("*.part")):
        if time.monotonic() > end:
            raise SystemExit("the filler does not begin")
        time.sleep(0.005)


def nbytes(store: Path) -> int:
    total = 0
    for path in (*store.glob("*.part"), *store.glob("*.store")):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def cpu(roles: LocalRoles) -> dict[str, float]:
    """Processor seconds of each role so far, where the system has /proc."""
    found = {}
    for role, process in roles.processes.items():
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        found[role] = sum(map(int, ticks)) / 100
    return found


if __name__ == "__main__":
    sys.exit(main())
