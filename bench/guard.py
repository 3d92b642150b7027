"""The guard: what it costs, what it catches, and whether it marks texts that are right.

    python bench/guard.py                                          cost at BERT_BASE, 128 tokens; the catch tables
    python bench/guard.py --sst2 SST-2/dev.tsv --model all-MiniLM-L6-v2 --pairs STS-B/dev.tsv       false alarms

Cost: one inference with the guard and one without, on one random model, in turns; both answers are verified against
the float64 twin first. Catch tables: texts of one repeated word on the shipped model, with its own range profile and
with one that was measured on a single sentence; and a tiny model in which the embedding of one token is made 10 and 60
times larger after its ranges were measured. An answer is wrong if it is off by more than 0.01 from plaintext. False
alarms: every sentence of the files runs on shares, and none should be marked. The files have a header and columns split
at tabs; the sentences stand in the first column, or in the first two.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bert import SHAPES, checkpoint
from report import record

from secformer import SecureModel, demo_model, plain_bert
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import measure
from secformer.models.run.local import twin
from secformer.protocols.recipes import FAITHFUL, SECFORMER

REPEATED = {"good": (80, 126), "film": (126,), "word": (60,), "love": (126,)}
PLAIN = "A wonderful film, warm and funny from start to finish."
WRONG, VERIFIED, TOKENS, RARE = 0.01, 0.02, 128, 1000


def cost(repeat: int) -> dict[str, Any]:
    """One inference of the BERT_BASE shape with the guard, as a multiple of the same without."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint(Path(folder), *SHAPES["base"], 0)
        ids = {"input_ids": rng.integers(1000, 30000, size=(1, TOKENS))}
        profile = measure(ModelFolder(folder), ids, recipe=FAITHFUL)
        exact = twin(folder, ids, profile=profile).last_hidden_state
        seconds: dict[str, list[float]] = {"mark": [], "off": []}
        costs = {}
        models = {g: SecureModel.from_pretrained(folder, profile=profile, backend="numpy", guard=g) for g in seconds}
        for guard, model in models.items():
            out = model(ids)
            close = np.abs(out.last_hidden_state - exact).max() <= VERIFIED
            if not close or (guard == "mark" and not out.trusted.all()):
                raise SystemExit(f"guard {guard}: the answer is wrong, so its time means nothing")
        for _ in range(repeat):
            for guard, model in models.items():
                started = time.perf_counter()
                costs[guard] = model(ids).cost
                seconds[guard].append(time.perf_counter() - started)
    found: dict[str, Any] = {"tokens": TOKENS, "repeat": repeat}
    for name in ("bytes", "rounds", "dealer_bytes"):
        found[name] = {guard: getattr(costs[guard], name) for guard in costs}
    found["seconds"] = {guard: round(min(each), 2) for guard, each in seconds.items()}
    found["bytes_more"] = costs["mark"].bytes / costs["off"].bytes - 1.0
    found["rounds_more"] = costs["mark"].rounds - costs["off"].rounds
    found["dealer_bytes_more"] = costs["mark"].dealer_bytes / costs["off"].dealer_bytes - 1.0
    found["seconds_more"] = min(seconds["mark"]) / min(seconds["off"]) - 1.0
    return found


def repeated() -> list[dict[str, Any]]:
    """The shipped model on one repeated word."""
    texts = {f"{word} x {count}": f"{word} " * count for word, counts in REPEATED.items() for count in counts}
    narrow = measure(ModelFolder(demo_model()), [PLAIN], recipe=SECFORMER)
    exact = plain_bert(demo_model(), list(texts.values()))
    rows = []
    for name, profile in (("shipped", None), ("one sentence", narrow)):
        out = secure(profile, list(texts.values()))
        error = np.abs(out.logits - exact.logits).max(axis=1)
        rows += [{"profile": name, "text": text, "error": _finite(e), "wrong": bool(not e <= WRONG),
                  "marked": bool(not t)} for text, e, t in zip(texts, error, out.trusted, strict=True)]
    return rows


def secure(profile: Any, texts: list[str]) -> Any:
    with SecureModel.from_pretrained(demo_model(), profile=profile, backend="numpy") as model:
        return model(texts)


def rare() -> list[dict[str, Any]]:
    """A token whose embedding grows after the ranges were measured."""
    from safetensors.numpy import load_file, save_file

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint(Path(folder), *SHAPES["tiny"], 0)
        path = Path(folder) / "model.safetensors"
        weights = load_file(path)
        profile = measure(ModelFolder(folder), recipe=FAITHFUL)
        table = weights["embeddings.word_embeddings.weight"]
        common = np.arange(2000, 2012)
        for factor in (10, 60):
            changed = table.copy()
            changed[RARE] = table[RARE] * np.float16(factor)
            save_file(weights | {"embeddings.word_embeddings.weight": changed}, path)
            own = replace(profile, model=ModelFolder(folder).digest)
            ids = {"input_ids": np.stack([common, np.where(np.arange(12) == 5, RARE, common)])}
            exact = plain_bert(folder, ids)
            with SecureModel.from_pretrained(folder, profile=own, backend="numpy") as model:
                out = model(ids)
            error = np.abs(out.last_hidden_state - exact.last_hidden_state).reshape(2, -1).max(axis=1)
            rows += [{"factor": factor, "text": text, "error": _finite(e), "wrong": bool(not e <= WRONG),
                      "marked": bool(not t)}
                     for text, e, t in zip(("without", "with"), error, out.trusted, strict=True)]
    return rows


def alarms(model: str, path: Path, columns: int, count: int | None) -> dict[str, Any]:
    """How many sentences are marked, and how far the answers are off."""
    lines = [line.split("\t") for line in path.read_text("utf-8").splitlines()[1:]]
    texts = [text for line in lines for text in line[:columns]][:count]
    exact = plain_bert(model, texts)
    with SecureModel.from_pretrained(model, backend="numpy") as loaded:
        out = loaded(texts)
    name = "logits" if out.logits is not None else "last_hidden_state"
    return {"sentences": len(texts), "marked": int((~out.trusted).sum()),
            "places": sorted({place for places in out.breaches for place in places}),
            "error": float(np.abs(getattr(out, name) - getattr(exact, name)).max())}


def _finite(x: float) -> float | str:
    return float(x) if np.isfinite(x) else "not finite"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="timed runs of each; the fastest counts")
    parser.add_argument("--sst2", type=Path, help="sentences for the shipped model, in the first column")
    parser.add_argument("--model", help="folder of an encoder, for --pairs")
    parser.add_argument("--pairs", type=Path, help="pairs of sentences for --model, in the first two columns")
    parser.add_argument("--count", type=int, default=1000, help="sentences of --pairs to run")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    if args.sst2:
        found["sst2"] = alarms(demo_model(), args.sst2, 1, None)
    if args.model and args.pairs:
        found["pairs"] = alarms(args.model, args.pairs, 2, args.count)
    if found:
        print(found)
        record("guard-alarms", found)
        return
    result: dict[str, Any] = {"repeated": repeated(), "rare_token": rare(), "cost": cost(args.repeat)}
    for name, found in result.items():
        print(name, *(found if isinstance(found, list) else [found]), sep="\n  ")
    missed = [row for row in (*result["repeated"], *result["rare_token"]) if row["wrong"] and not row["marked"]]
    if missed:
        raise SystemExit(f"wrong and not marked: {missed}")
    record("guard", result)


if __name__ == "__main__":
    main()
