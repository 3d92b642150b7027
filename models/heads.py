"""What an architecture answers with: a head is a function of the encoder's output, over the box.

B texts, N packed tokens, C hidden, L labels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from secformer.models.config import ENCODER, MASKED, QUESTION, SEQUENCE, TOKEN
from secformer.models.encoder import Bert, encode, layernorm, linear, pool
from secformer.models.tokens import Batch
from secformer.mpc.session import Session
from secformer.mpc.shares import Share

Head = Callable[[Session, Share, "Share | None", Bert], dict[str, Share]]


def answer(s: Session, x: Share, batch: Batch, bert: Bert) -> dict[str, Share]:
    """Embedding sums (N, C) to every result of the architecture, by Hugging Face's names: `last_hidden_state` (N, C),
    `pooler_output` (B, C) where there is a pooler, and the head's `logits`."""
    hidden = encode(s, x, batch, bert)
    out = {"last_hidden_state": hidden}
    if bert.spec.pooler:
        out["pooler_output"] = pool(s, hidden, batch, bert)
    with s.scope("head"):
        return out | HEADS[bert.spec.architecture](s, hidden, out.get("pooler_output"), bert)


def no_head(s: Session, hidden: Share, pooled: Share | None, bert: Bert) -> dict[str, Share]:
    return {}


def classify_text(s: Session, hidden: Share, pooled: Share | None, bert: Bert) -> dict[str, Share]:
    """(B, L) from the pooled first tokens."""
    if pooled is None:
        raise ValueError("a sequence classifier reads the pooler")
    return {"logits": linear(s, pooled, bert.parameters, "head")}


def classify_tokens(s: Session, hidden: Share, pooled: Share | None, bert: Bert) -> dict[str, Share]:
    """(N, L); with two outputs, start and end of an answer."""
    return {"logits": linear(s, hidden, bert.parameters, "head")}


def predict_words(s: Session, hidden: Share, pooled: Share | None, bert: Bert) -> dict[str, Share]:
    """(N, V): dense, GeLU, LayerNorm, decoder."""
    x = linear(s, hidden, bert.parameters, "head.transform")
    with s.scope("gelu"):
        x = bert.recipe.gelu(s, x, bert.at("head.gelu"))
    x = layernorm(s, x, bert, "head.layernorm")
    return {"logits": linear(s, x, bert.parameters, "head")}


HEADS: Mapping[str, Head] = {
    ENCODER: no_head,
    SEQUENCE: classify_text,
    TOKEN: classify_tokens,
    QUESTION: classify_tokens,
    MASKED: predict_words,
}
