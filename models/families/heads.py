"""Heads: what models of every family answer beside hidden states.

B texts, N packed tokens, C hidden, L labels, V vocabulary.
"""

from __future__ import annotations

from enum import Enum

from secformer.models.families.blocks import Forward, layernorm, linear
from secformer.mpc.session import Session
from secformer.mpc.shares import Share


class Head(Enum):
    """What a model answers beside its hidden states."""

    ENCODER = "nothing: hidden states are the answer"
    SEQUENCE = "labels or numbers for a text"
    TOKEN = "a label for each token"
    QUESTION = "where an answer starts and ends"
    MASKED = "the word at each token"

    @property
    def by_token(self) -> bool:
        """Whether logits have one row per token (else one row per text)."""
        return self in (Head.TOKEN, Head.QUESTION, Head.MASKED)


def word_logits(s: Session, x: Share, f: Forward, eps: float) -> Share:
    """Logits (N, V) of hidden states (N, C): dense, GeLU, LayerNorm, decoder."""
    x = linear(s, x, f, "head.transform")
    with s.scope("gelu"):
        x = f.recipe.gelu(s, x, f.at("head.gelu"))
    return linear(s, layernorm(s, x, f, "head.layernorm", eps), f, "head")
