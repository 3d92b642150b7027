"""Embeddings, in OpenAI's shape."""

from __future__ import annotations

import base64
from collections.abc import Collection
from typing import Any

import numpy as np

from secformer.gateway.desk import Desk
from secformer.gateway.fields import Fields
from secformer.gateway.refusals import Refusal
from secformer.gateway.visits import Visit
from secformer.models.families.config import read_config
from secformer.models.run.output import unit

FLOAT, BASE64 = "float", "base64"
NESTED, SIZES = "is_matryoshka", "matryoshka_dimensions"  # entries of the config of a model whose embeddings may be cut


def embeddings(fields: Fields, desk: Desk, visit: Visit) -> dict[str, Any]:
    """An embedding for each input, in order. Raises Refusal, and as `Visit`."""
    texts, form = fields.inputs("input"), fields.choice("encoding_format", (FLOAT, BASE64))
    size = fields.whole("dimensions", 1)
    fields.end()
    if size is not None:
        _require_size(desk, size)
    found = visit.embed(texts)
    if size is not None and size < found.shape[1]:
        found = unit(found[:, :size])
    return {
        "object": "list", "model": desk.name,
        "data": [{"object": "embedding", "index": i, "embedding": _packed(row) if form == BASE64 else row.tolist()}
                 for i, row in enumerate(found.astype("<f4"))],
        "usage": {"prompt_tokens": visit.tokens, "total_tokens": visit.tokens},
    }


def _packed(row: np.ndarray) -> str:
    """Little-endian float32 as base64."""
    return base64.b64encode(row.tobytes()).decode()


def _require_size(desk: Desk, size: int) -> None:
    """Raises Refusal for a size that the model's embeddings were not trained to be cut to."""
    own, config = desk.architecture.embedding_size, read_config(desk.tokenizer.folder)
    allowed: Collection[int] = config.get(SIZES) or (range(1, own) if config.get(NESTED) is True else ())
    if size != own and not (isinstance(allowed, Collection) and size in allowed and size < own):
        named = f"{SIZES} in config.json allows {allowed}" if allowed else "they cannot be cut"
        raise Refusal(400, "invalid_value", f"the embeddings of {desk.name} have {own} dimensions, and {named}; leave "
                                            f"'dimensions' out", param="dimensions")
