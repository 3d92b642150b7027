"""Real checkpoints, on shares and in plaintext: hidden states, embeddings, and SPLADE's expansion terms.

    python bench/real.py --model all-MiniLM-L6-v2 --texts STS-B/dev.tsv
    python bench/real.py --model splade --texts STS-B/dev.tsv

The file has a header and a column sentence1, split at tabs. The bench takes the first sentences. It reports the largest
error of `last_hidden_state`, relative to the largest value of the hidden states; the lowest cosine of a secure
embedding and its plaintext one; and, for a masked-language model, how many sentences have the same expansion terms:
the words with the largest max over tokens of log(1 + relu(logit)) (Formal et al., SPLADE v2, 2021).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from report import record

from secformer import SecureModel, SecureOutput, plain_bert

TERMS = 20


def sentences(path: Path, count: int) -> list[str]:
    """The first sentences of a file, each once."""
    rows = [line.split("\t")[0] for line in path.read_text("utf-8").splitlines()[1:]]
    return list(dict.fromkeys(rows))[:count]


def expansion(out: SecureOutput) -> list[set[int]]:
    """The ids of the TERMS heaviest words of each text, and of words that weigh as much as the last of them."""
    assert out.logits is not None
    weights = np.log1p(np.maximum(out.logits, 0.0)) * out.attention_mask[:, :, None]
    return [set(np.argsort(-row, kind="stable")[:TERMS].tolist()) for row in weights.max(axis=1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="folder of an encoder or a masked-language model")
    parser.add_argument("--texts", required=True, type=Path, help="TSV with sentence1")
    parser.add_argument("--sentences", type=int, default=50)
    args = parser.parse_args()

    texts = sentences(args.texts, args.sentences)
    plain = plain_bert(args.model, texts)
    with SecureModel.from_pretrained(args.model, backend="numpy") as model:
        started = time.perf_counter()
        secure = model(texts)
        seconds = time.perf_counter() - started
        architecture = model.spec.architecture
    assert plain.last_hidden_state is not None and secure.last_hidden_state is not None and secure.trusted is not None
    there = np.asarray(plain.attention_mask, dtype=bool)
    error = np.abs(secure.last_hidden_state - plain.last_hidden_state)[there]
    reach = float(np.abs(plain.last_hidden_state[there]).max())
    result = {
        "architecture": architecture, "sentences": len(texts), "marked": int((~secure.trusted).sum()),
        "hidden_reach": reach, "hidden_error": float(error.max()), "hidden_error_relative": float(error.max()) / reach,
        "seconds": round(seconds, 2), "online_bytes": secure.cost.bytes if secure.cost is not None else 0,
    }
    if plain.encoder_only:
        result["cosine_min"] = float((secure.embeddings * plain.embeddings).sum(-1).min())
    if plain.logits is not None:
        same = [mine == theirs for mine, theirs in zip(expansion(secure), expansion(plain), strict=True)]
        result |= {"terms": TERMS, "same_terms": sum(same), "logit_reach": float(np.abs(plain.logits[there]).max()),
                   "logit_error": float(np.abs(secure.logits - plain.logits)[there].max())}  # type: ignore[operator]
    print(result)
    record(f"real-{args.model.resolve().name.lower()}", result)


if __name__ == "__main__":
    main()
