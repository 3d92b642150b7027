"""Embeddings through the gateway, by 1, 8 and 50 callers at a time, beside the same model asked directly.

    python bench/gateway.py                           random weights of the shape `tiny`
    python bench/gateway.py --model FOLDER --texts 100

Real roles and the gateway's port, on this machine. Each caller keeps its connection and asks for one text after the
other; texts have 8 to 16 tokens. Directly means that as many threads call one `RemoteModel`, which answers one call
after the other. Every answer of every way is compared with plaintext before anything is timed. Writes
bench/results/gateway.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
from bert import SHAPES, checkpoint
from report import RESULTS, record

from secformer import connect
from secformer.gateway.desk import desks_of
from secformer.gateway.server import GatewayServer, Port
from secformer.models.families.folder import ModelFolder
from secformer.models.run.local import reference
from secformer.roles.trial import LocalRoles

CALLERS = (1, 8, 50)
LENGTHS = range(8, 17)  # tokens of a text
TOLERANCE = 0.02        # largest error of an entry of an embedding of unit length
Ask = Callable[[list[int]], np.ndarray]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a Hugging Face folder of an encoder (default: random weights)")
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--texts", type=int, default=100, help="requests of each row")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as at, ExitStack() as stack:
        model = args.model
        if model is None:
            model = Path(at) / "checkpoint"
            model.mkdir()
            checkpoint(model, *SHAPES[args.shape], 0)
        roles = stack.enter_context(LocalRoles(Path(at) / "served", model))
        roles.wait_ready(600.0, lambda reason: print(f"  {reason}", file=sys.stderr))
        own, rng = ModelFolder(model), np.random.default_rng(0)
        (first, last), words = own.tokenizer.tokens(""), own.architecture.inputs.words
        texts = [[first, *rng.integers(words // 2, words, int(rng.choice(LENGTHS)) - 2).tolist(), last]
                 for _ in range(args.texts)]
        wanted = reference(own).embed({"input_ids": texts})
        server = stack.enter_context(GatewayServer(Port(("127.0.0.1", 0)), desks_of([("m", roles.settings("client"))])))
        far = stack.enter_context(connect(roles.settings("client")))
        ways: dict[str, Callable[[], Ask]] = {
            "gateway": lambda: caller(server), "direct": lambda: lambda ids: far.embed({"input_ids": [ids]})[0]}
        for way in ways.values():
            verify(timed(way, CALLERS[-1], texts)[0], wanted)
        rows = [row(name, callers, texts, way) for callers in CALLERS for name, way in ways.items()]
        started = time.perf_counter()
        verify(far.embed({"input_ids": texts}), wanted)
        together = args.texts / (time.perf_counter() - started)
    print(f"all texts in one call of RemoteModel: {together:.1f} texts/s")
    record("gateway", {"model": args.model.name if args.model else args.shape, "texts": args.texts, "rows": rows,
                       "one_call_texts_per_second": together}, args.out)
    return 0


def caller(server: GatewayServer) -> Ask:
    """Asks for one embedding after the other on a connection of its own."""
    connection = HTTPConnection(*server.address, timeout=600.0)

    def ask(ids: list[int]) -> np.ndarray:
        connection.request("POST", "/v1/embeddings", json.dumps({"model": "m", "input": ids}),
                           {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = json.loads(answer.read())
        if answer.status != 200:
            raise SystemExit(f"the gateway answered {answer.status}: {said}")
        return np.array(said["data"][0]["embedding"])

    return ask


def timed(way: Callable[[], Ask], callers: int, texts: list[list[int]]) -> tuple[np.ndarray, list[float], float]:
    """The answers in order, the seconds of each, and of all."""
    numbers = iter(range(len(texts)))
    found: dict[int, tuple[np.ndarray, float]] = {}

    def work(ask: Ask) -> None:
        for number in numbers:  # shared by the threads
            started = time.perf_counter()
            answer = ask(texts[number])
            found[number] = answer, time.perf_counter() - started

    asks = [way() for _ in range(callers)]
    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as threads:
        list(threads.map(work, asks))
    total = time.perf_counter() - started
    return np.stack([found[i][0] for i in range(len(texts))]), [found[i][1] for i in range(len(texts))], total


def verify(found: np.ndarray, wanted: np.ndarray) -> None:
    error = float(np.abs(found - wanted).max())
    if not error <= TOLERANCE:
        raise SystemExit(f"an answer is off by {error:.3g}: nothing is recorded")


def row(name: str, callers: int, texts: list[list[int]], way: Callable[[], Ask]) -> dict[str, Any]:
    _, seconds, total = timed(way, callers, texts)
    found = {"way": name, "callers": callers, "requests_per_second": len(texts) / total,
             "median_seconds": statistics.median(seconds), "p95_seconds": float(np.quantile(seconds, 0.95))}
    print(f"{callers:3} at a time, {name:7}: {found['requests_per_second']:6.1f} requests/s, median "
          f"{found['median_seconds']:.3f} s, 95 % below {found['p95_seconds']:.3f} s")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
