"""Secure answers against the float64 plaintext forward pass, on a real encoder and real sentence pairs.

    python bench/fidelity.py --model all-MiniLM-L6-v2 --pairs STS-B/dev.tsv

The file has a header and the columns sentence1, sentence2, label, split at tabs. The bench reports the largest absolute
error of `last_hidden_state` and the lowest cosine of embeddings, on the first sentences. It also reports Pearson's
correlation of cosine and label over the first pairs, secure and in plaintext.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from report import peak_memory, record

from secformer import SecureModel, plain_bert


def read_pairs(path: Path, count: int) -> tuple[list[str], list[str], np.ndarray]:
    rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()[1 : count + 1]]
    return [r[0] for r in rows], [r[1] for r in rows], np.array([float(r[2]) for r in rows])


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a BertModel checkpoint")
    parser.add_argument("--pairs", required=True, type=Path, help="TSV with sentence1, sentence2, label")
    parser.add_argument("--sentences", type=int, default=50)
    parser.add_argument("--count", type=int, default=200, help="pairs for Pearson's correlation")
    parser.add_argument("--recipe", default="faithful")
    parser.add_argument("--frac", type=int, default=16)
    args = parser.parse_args()

    first, second, labels = read_pairs(args.pairs, args.count)
    sentences = [s for pair in zip(first, second, strict=True) for s in pair]
    plain = plain_bert(args.model, sentences)
    with SecureModel.from_pretrained(args.model, recipe=args.recipe, backend="numpy", frac=args.frac) as model:
        started = time.perf_counter()
        secure = model(sentences)
        seconds = time.perf_counter() - started

    n = args.sentences
    mask = np.asarray(plain.attention_mask[:n], dtype=bool)
    assert plain.last_hidden_state is not None and secure.last_hidden_state is not None
    error = np.abs(secure.last_hidden_state[:n] - plain.last_hidden_state[:n])[mask]
    ours, theirs = np.asarray(secure.embeddings), np.asarray(plain.embeddings)
    cosine = (ours * theirs).sum(-1)
    result = {
        "recipe": args.recipe,
        "fractional_bits": args.frac,
        "sentences": n,
        "last_hidden_state_max_error": float(error.max()),
        "last_hidden_state_mean_error": float(error.mean()),
        "embedding_cosine_min": float(cosine[:n].min()),
        "pairs": len(labels),
        "pearson_plain": pearson((theirs[0::2] * theirs[1::2]).sum(-1), labels),
        "pearson_secure": pearson((ours[0::2] * ours[1::2]).sum(-1), labels),
        "seconds": round(seconds, 2),
        "peak_memory_bytes": peak_memory(),
    }
    print(result)
    record(f"fidelity-{args.recipe}" + ("" if args.frac == 16 else f"-{args.frac}"), result)


if __name__ == "__main__":
    main()
