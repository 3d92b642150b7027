"""Accuracy of a classifier on a labelled set: the secure run beside the plaintext run in float64.

    python bench/classify.py --data SST-2/dev.tsv

The file has a header and the columns sentence1 and label, split at tabs. Without --model, the shipped model is used.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from report import peak_memory, record

from secformer import SecureModel, demo_model, plain_bert


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--model", default=demo_model(), help="default: the shipped model")
    parser.add_argument("--recipe", default="auto", help="default: the recipe that the model was trained for")
    parser.add_argument("--limit", type=int, help="use the first examples only")
    args = parser.parse_args()

    rows = [line.split("\t") for line in args.data.read_text("utf-8").splitlines()[1:]][: args.limit]
    texts, labels = [r[0] for r in rows], np.array([int(r[-1]) for r in rows])
    plain = plain_bert(args.model, texts)
    with SecureModel.from_pretrained(args.model, recipe=args.recipe, backend="numpy", output="head") as model:
        started = time.perf_counter()
        secure = model(texts)
        seconds = time.perf_counter() - started
        recipe = model.recipe.name
    ours, theirs = np.asarray(secure.logits), np.asarray(plain.logits)
    result = {
        "recipe": recipe,
        "examples": len(rows),
        "accuracy_plain": float((theirs.argmax(-1) == labels).mean()),
        "accuracy_secure": float((ours.argmax(-1) == labels).mean()),
        "labels_agree": float((ours.argmax(-1) == theirs.argmax(-1)).mean()),
        "logits_max_error": float(np.abs(ours - theirs).max()),
        "seconds": round(seconds, 2),
        "peak_memory_bytes": peak_memory(),
    }
    print(result)
    record(f"classify-{recipe}", result)


if __name__ == "__main__":
    main()
