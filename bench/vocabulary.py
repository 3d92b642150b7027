"""What a large vocabulary costs: peak memory, bytes and seconds of the private look-up of token ids.

    python bench/vocabulary.py
    python bench/vocabulary.py --hidden 384 --tokens 16,128,512

A model of one layer with 250,002 words (XLM-RoBERTa's) and random weights is loaded, and asked for one text, with all
roles in one process. Memory is the largest resident size while the model is loaded, and while it answers, each counted
by itself (Linux only). Bytes and seconds are those of the look-up alone. `client` is the same model with
`embedding="client"`. The answers are compared with the float64 twin before anything is recorded. Each hidden size and
way of embedding runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bert
import numpy as np
from report import record

from secformer import SecureModel
from secformer.models.data.tensors import TABLE
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import measure
from secformer.models.run.local import twin
from secformer.mpc.meter import Cost
from secformer.protocols.recipes import FAITHFUL

WORDS, HEADS = 250_002, {384: 12, 768: 12, 1024: 16}
TOLERANCE = 0.02


def start_peak() -> int:
    """The resident size now, in bytes; `peak` counts from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """The largest resident size since `start_peak`, in bytes."""
    return _status("VmHWM")


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def seconds(cost: Cost) -> float:
    return cost.seconds + cost.offline_seconds


def measured(folder: Path, embedding: str, tokens: list[int]) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    texts = {n: {"input_ids": rng.integers(5, WORDS, (1, n))} for n in tokens}
    profile = measure(ModelFolder(folder), texts[max(tokens)], recipe=FAITHFUL)
    before, started = start_peak(), time.perf_counter()
    with SecureModel.from_pretrained(folder, profile=profile, backend="numpy", embedding=embedding) as model:
        found: dict[str, Any] = {
            "load": {"seconds": round(time.perf_counter() - started, 2), "peak_bytes": peak(), "before": before,
                     "opened_bytes": model.provisioning.offline_bytes},
            "table_width": model.layout[TABLE].width if TABLE in model.layout else None, "notes": model.notes}
        for n, text in texts.items():
            before = start_peak()
            out = model(text)
            top = peak()
            exact = twin(folder, text, profile=profile)
            error = float(np.abs(out.last_hidden_state - exact.last_hidden_state).max())
            if not error <= TOLERANCE:
                raise SystemExit(f"{n} tokens: off by {error:.3g} from the twin, so nothing is recorded")
            cost = out.cost.children["embedding"]
            after = cost.children["layernorm"]
            found[str(n)] = {
                "peak_bytes": top, "before": before, "error": error, "look_up_bytes": cost.bytes - after.bytes,
                "look_up_rounds": cost.rounds - after.rounds,
                "look_up_seconds": round(seconds(cost) - seconds(after), 3),
                "all_bytes": out.cost.bytes, "all_rounds": out.cost.rounds}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", default="384,1024", help="hidden sizes, with commas between them")
    parser.add_argument("--tokens", default="16,128", help="lengths of the text, with commas between them")
    parser.add_argument("--embedding", default="private,client")
    parser.add_argument("--out", default="vocabulary", help="name of the results")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # for a row's own process: the checkpoint
    args = parser.parse_args()
    tokens = [int(n) for n in args.tokens.split(",")]
    if args.folder:
        print(json.dumps(measured(args.folder, args.embedding, tokens)))
        return
    rows: dict[str, Any] = {}
    for hidden in map(int, args.hidden.split(",")):
        with tempfile.TemporaryDirectory() as at:
            bert.VOCAB, bert.TYPES = WORDS, 1
            bert.checkpoint(Path(at), 1, hidden, HEADS[hidden], 0)
            for embedding in args.embedding.split(","):
                path = os.pathsep.join([str(bert.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
                done = subprocess.run(
                    [sys.executable, __file__, "--folder", at, "--embedding", embedding, "--tokens", args.tokens],
                    check=True, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)
                row = rows[f"{hidden}, {embedding}"] = json.loads(done.stdout.splitlines()[-1])
                print(hidden, embedding, json.dumps(row), flush=True)
    record(args.out, {"words": WORDS, "rows": rows})


if __name__ == "__main__":
    main()
