"""Pooling of hidden states by sums of tokens with public weights: local, for sentence encoders and for classifiers.

B texts, T tokens of the longest, N packed tokens, C hidden.
"""

from __future__ import annotations

import numpy as np

from secformer.models.data.batch import Batch
from secformer.mpc.session import Session
from secformer.mpc.shares import Share


def summed(s: Session, x: Share, batch: Batch, way: str, kept: np.ndarray) -> Share:
    """One way of pooling hidden states (N, C), settled, to (B, C). kept (B, T) says which tokens are pooled. Local."""
    each, factors = weights(way, kept)
    return _scaled(s, (tokens(x, batch) * each[..., None]).sum(axis=1), factors)


def tokens(x: Share, batch: Batch, index: np.ndarray | None = None) -> Share:
    """Packed tokens (N, C) as (B, T, C): those at `index` (B, T), by default each at its own place."""
    at = batch.unpacking if index is None else index.reshape(-1)
    return x[at].reshape(batch.size, batch.longest, x.shape[-1])


def weights(way: str, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each token counts in a sum, as whole numbers (B, T), and the factor (B,) that the sum is multiplied with.

    kept (B, T) says which tokens are pooled. A text without any has zeros, except for "cls", which takes its first.
    """
    texts, steps = np.arange(len(kept)), np.arange(kept.shape[1])
    if way in ("cls", "lasttoken"):
        chosen = kept.argmax(axis=1) if way == "cls" else steps[-1] - kept[:, ::-1].argmax(axis=1)
        one = np.zeros(kept.shape, np.int64)
        one[texts, chosen] = 1 if way == "cls" else kept[texts, chosen]
        return one, np.ones(len(kept))
    each = kept * (steps + 1 if way == "weightedmean" else 1)
    total = np.maximum(each.sum(axis=1), 1)
    return each, 1.0 / (np.sqrt(total) if way == "mean_sqrt_len_tokens" else total)


def _scaled(s: Session, x: Share, factors: np.ndarray) -> Share:
    """x (B, C) with each row times its public factor (B,). Factors within a power of two share a scale, and no others:
    a long text's small factor would lose its last bits beside a short text's large one. Factors are arrays, so that
    lengths that share a scale are one program with other constants."""
    if (factors == 1.0).all():
        return x
    exponents = np.frexp(factors)[1]
    rows = [np.flatnonzero(exponents == exponent) for exponent in np.unique(exponents)]
    parts = [(x[here] * factors[here, None]).promise(x.magnitude) for here in rows]
    return s.concatenate(parts)[np.argsort(np.concatenate(rows))]
