"""Heads: what models of every family answer beside hidden states.

B texts, N packed tokens, C hidden, L labels, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from secformer.models.data.tensors import Part, Tensor, linear_layout, norm_layout
from secformer.models.families.activations import TANH, activating, activation
from secformer.models.families.blocks import Forward, linear
from secformer.mpc.session import Session
from secformer.mpc.shares import Share


class Head(Enum):
    """What a model answers beside its hidden states."""

    ENCODER = "nothing: hidden states are the answer"
    SEQUENCE = "labels or numbers for a text"
    TOKEN = "a label for each token"
    QUESTION = "where an answer starts and ends"
    MASKED = "the word at each token"
    CAUSAL = "the word behind each token"
    REPLACED = "whether each token was replaced"
    NEXT = "whether a pair's second text continues the first"
    PRETRAINING = "the word at each token, and whether a pair's second text continues the first"

    @property
    def by_token(self) -> bool:
        """Whether logits have one row per token (else one row per text)."""
        return self in (Head.TOKEN, Head.QUESTION, Head.MASKED, Head.CAUSAL, Head.REPLACED)


@dataclass(frozen=True)
class TextHead:
    """Logits of a text from the pooler's output or the first token's hidden state, or of each token from its own: one
    linear layer, or two.

    out    the checkpoint's name of the last layer
    dense  the layer before it; None: there is none
    act    the activation between both: TANH, or a value of `activations.NAMES`
    """

    out: str
    dense: str | None = None
    act: str = TANH

    def layout(self, hidden: int, labels: int) -> dict[str, Tensor]:
        """The tensors, in the program's order."""
        before = linear_layout("head.dense", self.dense, hidden, hidden) if self.dense else {}
        return before | linear_layout("head", self.out, hidden, labels)

    @property
    def sites(self) -> tuple[str, ...]:
        """The call sites whose ranges are measured."""
        return (f"head.{self.act}",) if self.dense else ()

    def logits(self, s: Session, x: Share, f: Forward) -> Share:
        """x (B, C) to (B, L), or (N, C) to (N, L)."""
        if self.dense is not None:
            x = linear(s, x, f, "head.dense", magnitude=activating(s, f, "head", self.act))
            x = activation(s, x, f, "head", self.act)
        return linear(s, x, f, "head")


@dataclass(frozen=True)
class WordHead:
    """Where the head that finds words has its layers: dense, LayerNorm and decoder; and what its bias may be called
    beside the decoder's own."""

    dense: str
    norm: str
    decoder: str
    bias: str | None = None

    @property
    def biases(self) -> tuple[str, ...]:
        """The names that the bias may have. Where a checkpoint has both, the decoder's own is the one that counts."""
        return (f"{self.decoder}.bias", *((self.bias,) if self.bias else ()))

    def layout(self, words: str | None, hidden: int, embedded: int, vocab: int) -> dict[str, Tensor]:
        """The tensors, in the program's order. `words`: the word table, where the decoder may be that."""
        decoder = (f"{self.decoder}.weight", *((words,) if words else ()))
        return {
            **linear_layout("head.transform", self.dense, hidden, embedded),
            **norm_layout("head.layernorm", self.norm, embedded),
            "head.weight": Tensor((Part(decoder, (vocab, embedded), True),), standing=True),
            "head.bias": Tensor((Part(self.biases, (vocab,)),)),
        }
