"""Heads: what models of every family answer beside hidden states.

B texts, N packed tokens, C hidden, L labels, V vocabulary.
"""

from __future__ import annotations

from enum import Enum

from secformer.models.families.activations import GELU, activation
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
    NEXT = "whether a pair's second text continues the first"
    PRETRAINING = "the word at each token, and whether a pair's second text continues the first"

    @property
    def by_token(self) -> bool:
        """Whether logits have one row per token (else one row per text)."""
        return self in (Head.TOKEN, Head.QUESTION, Head.MASKED)

    @property
    def pooled(self) -> bool:
        """Whether a BERT with this head has a pooler."""
        return self in (Head.ENCODER, Head.SEQUENCE, Head.NEXT, Head.PRETRAINING)


def word_logits(s: Session, x: Share, f: Forward, eps: float, act: str = GELU) -> Share:
    """Logits (N, V) of hidden states (N, C): dense, the activation `act`, LayerNorm, decoder."""
    x = activation(s, linear(s, x, f, "head.transform"), f, "head", act)
    return linear(s, layernorm(s, x, f, "head.layernorm", eps), f, "head")
