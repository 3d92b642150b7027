"""A small BERT cut out of a large one: the first layers, the most used words, the heaviest feed-forward neurons."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from secformer.models.distill.model import names
from secformer.models.families.bert import Bert
from secformer.models.families.folder import ModelFolder
from secformer.mpc.errors import ModelError

WORDS, POSITIONS = Bert.names.words, Bert.names.positions
INNER, OUTER = "intermediate.dense", "output.dense"


def trim(source: ModelFolder, out: Path, texts: Sequence[str], *, words: int, positions: int, layers: int | None = None,
         neurons: int | None = None) -> ModelFolder:
    """Writes a smaller model of the source's architecture, and opens its folder.

    words      the size of the vocabulary: the special tokens, all single letters, and the tokens that are most frequent
               in `texts`; other words are split into pieces that remain
    positions  the number of positions that are kept
    layers     the number of first layers that are kept (default: all)
    neurons    the number of neurons per layer that are kept, those with the largest weights (default: all)

    The source must be a BERT with a lower-case WordPiece vocabulary. Raises ModelError for another family, and where
    there is no vocab.txt.
    """
    from safetensors.numpy import save_file
    from transformers import BertTokenizer

    if not isinstance(source.architecture, Bert):
        raise ModelError(f"{source.path} is of the type {source.architecture.model_type!r}; only models of the type "
                         f"{Bert.model_type!r} can be trimmed")
    path = source.path / "vocab.txt"
    if not path.is_file():
        raise ModelError(f"{source.path} has no vocab.txt; only WordPiece models that have one can be trimmed")
    config = json.loads((source.path / "config.json").read_text("utf-8"))
    layers = config["num_hidden_layers"] if layers is None else layers
    neurons = config["intermediate_size"] if neurons is None else min(neurons, config["intermediate_size"])
    vocabulary = path.read_text("utf-8").splitlines()
    kept = _frequent(vocabulary, source, texts, words)
    out.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, np.ndarray] = {}
    for name, shape in names(source.architecture).items():
        if name.startswith("encoder.layer.") and int(name.split(".")[2]) >= layers:
            continue
        tensors[name] = source.checkpoint.read(name, shape).astype(np.float32)
    tensors[WORDS], tensors[POSITIONS] = tensors[WORDS][kept], tensors[POSITIONS][:positions]
    for i in range(layers):
        at = f"encoder.layer.{i}."
        weight_in, weight_out = tensors[f"{at}{INNER}.weight"], tensors[f"{at}{OUTER}.weight"]
        heavy = np.linalg.norm(weight_in, axis=1) * np.linalg.norm(weight_out, axis=0)
        best = np.sort(np.argsort(-heavy)[:neurons])
        tensors[f"{at}{INNER}.weight"], tensors[f"{at}{OUTER}.weight"] = weight_in[best], weight_out[:, best]
        tensors[f"{at}{INNER}.bias"] = tensors[f"{at}{INNER}.bias"][best]
    config |= {"num_hidden_layers": layers, "intermediate_size": neurons, "vocab_size": len(kept),
               "max_position_embeddings": positions, "pad_token_id": 0}
    config.pop("_name_or_path", None)
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, str(out / "model.safetensors"))
    tokens = [vocabulary[i] for i in kept]
    tokenizer = BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}, do_lower_case=True,
                              model_max_length=positions)
    tokenizer.save_pretrained(out)
    (out / "vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")
    return ModelFolder(out)


def _frequent(vocabulary: list[str], source: ModelFolder, texts: Sequence[str], words: int) -> np.ndarray:
    counts: Counter[int] = Counter()
    for row in source.tokenizer.rows(list(texts), truncation=True):
        counts.update(row.ids.tolist())
    special = [i for i, token in enumerate(vocabulary)
               if token.startswith("[") and token.endswith("]") and not token.startswith("[unused") and len(token) > 2]
    letters = [i for i, token in enumerate(vocabulary)
               if len(token.removeprefix("##")) == 1 and token.removeprefix("##").isascii()]
    chosen = dict.fromkeys([*special, *letters])
    for i, _ in counts.most_common():
        if len(chosen) >= words:
            break
        chosen.setdefault(i)
    first = [vocabulary.index("[PAD]")]
    return np.array(first + sorted(set(chosen) - set(first)))
