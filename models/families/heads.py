"""Heads: what models answer with beside hidden states, whatever the family.

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
        """Whether logits have one row for each token (else one for each text)."""
        return self in (Head.TOKEN, Head.QUESTION, Head.MASKED)


def affine(s: Session, x: Share, f: Forward) -> Share:
    """(..., L) by the head's one matrix: classes of pooled texts (B, C) or of tokens (N, C); with two outputs, start
    and end of an answer."""
    return linear(s, x, f, "head")


def word_logits(s: Session, x: Share, f: Forward, eps: float) -> Share:
    """(N, V) from hidden states (N, C): dense, GeLU, LayerNorm, decoder."""
    x = linear(s, x, f, "head.transform")
    with s.scope("gelu"):
        x = f.recipe.gelu(s, x, f.at("head.gelu"))
    return linear(s, layernorm(s, x, f, "head.layernorm", eps), f, "head")
