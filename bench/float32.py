"""BERT's forward pass in float32 NumPy, with which a secure inference is compared. One text, no padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

Array = np.ndarray
ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)  # Abramowitz and Stegun 7.1.26
ERF_P = 0.3275911


class Float32Bert:
    """A BertModel checkpoint in float32."""

    def __init__(self, folder: Path, layers: int, heads: int, eps: float = 1e-12):
        loaded = load_file(folder / "model.safetensors")
        self._tensors = {name: value.astype(np.float32) for name, value in loaded.items()}
        self._layers, self._heads, self._eps = layers, heads, np.float32(eps)

    def __call__(self, ids: Array) -> Array:
        """The last hidden state (T, C) of ids (T,), all in segment 0."""
        t, at = self._tensors, "embeddings"
        x = (t[f"{at}.word_embeddings.weight"][ids] + t[f"{at}.position_embeddings.weight"][: ids.size]
             + t[f"{at}.token_type_embeddings.weight"][0])
        x = self._norm(x, f"{at}.LayerNorm")
        for i in range(self._layers):
            x = self._layer(x, f"encoder.layer.{i}")
        return x

    def _layer(self, x: Array, at: str) -> Array:
        own = f"{at}.attention.self"
        q, k, v = (self._linear(x, f"{own}.{name}").reshape(x.shape[0], self._heads, -1).swapaxes(0, 1)
                   for name in ("query", "key", "value"))
        scores = q @ k.swapaxes(1, 2) * np.float32(q.shape[-1] ** -0.5)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        context = (scores @ v / scores.sum(-1, keepdims=True)).swapaxes(0, 1).reshape(x.shape)
        x = self._norm(x + self._linear(context, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = gelu(self._linear(x, f"{at}.intermediate.dense"))
        return self._norm(x + self._linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")

    def _linear(self, x: Array, at: str) -> Array:
        return x @ self._tensors[f"{at}.weight"].T + self._tensors[f"{at}.bias"]

    def _norm(self, x: Array, at: str) -> Array:
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt((x * x).mean(-1, keepdims=True) + self._eps)
        return x * self._tensors[f"{at}.weight"] + self._tensors[f"{at}.bias"]


def gelu(x: Array) -> Array:
    """GeLU, with an error of about 1e-6."""
    z = np.abs(x) * np.float32(0.5**0.5)
    u = 1 / (1 + np.float32(ERF_P) * z)
    total = np.zeros_like(u)
    for c in reversed(ERF):
        total = (total + np.float32(c)) * u
    return np.float32(0.5) * x * (1 + np.copysign(1 - total * np.exp(-z * z), x))
