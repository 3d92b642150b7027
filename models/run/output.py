"""Results, named as Hugging Face names them.

B texts, T tokens of the longest, C hidden, L labels, V vocabulary. Beyond a text's end, all arrays are zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from secformer.models.data.batch import Row
from secformer.models.families.architecture import SENTENCE, Architecture, Spec
from secformer.models.families.heads import Head
from secformer.models.families.program import GUARD
from secformer.models.run.guard import Breaches, note, refuse
from secformer.models.run.probabilities import sigmoid, softmax
from secformer.models.run.tasks import Answer, facts
from secformer.mpc.errors import InputError
from secformer.mpc.meter import Cost

LISTED = ("labels", "breaches", "answers")  # fields that hold a list with an entry per text


@dataclass(frozen=True, eq=False)
class SecureOutput:
    """What the client learns. A field is None where the architecture has no such result, or it was not asked for.

    logits              (B, L) text classes; (B, T, L) token classes; (B, T, V) masked words; (B, 2) next sentence;
                        (B, T) replaced tokens, above 0 where a token is one
    prediction_logits, seq_relationship_logits  (B, T, V), (B, 2) of a model for pre-training
    start_logits, end_logits  (B, T) question answering
    labels              one name (str) per text; a list of names per text for token classes and multi-label models
    probabilities       softmax of class logits (sigmoid for multi-label models)
    scores              (B,) of a text classifier with one output, as sentence-transformers' CrossEncoder gives them:
                        the sigmoid of the logit, or the logit where the config says so
    last_hidden_state   (B, T, C)
    pooler_output       (B, C)
    sentence_embedding  (B, D) of a sentence-transformers folder, as its modules make it
    attention_mask      (B, T), 1 where a token is attended to
    trusted             (B,) bool: False where values left the ranges that the computation is right in, so that the
                        answer may be wrong; None where nothing was checked
    breaches            per text, where values left their ranges
    cost                the run's cost tree; None for the plaintext reference
    notes               what a user should know about this result
    profile_source      where the range profile came from
    encoder_only        whether the architecture has no head
    answers             per text, what it says: words for masks, an answer, entities (see `tasks`); None for other
                        heads and for token ids, which have no text
    """

    attention_mask: np.ndarray
    logits: np.ndarray | None = None
    prediction_logits: np.ndarray | None = None
    seq_relationship_logits: np.ndarray | None = None
    start_logits: np.ndarray | None = None
    end_logits: np.ndarray | None = None
    labels: list[Any] | None = None
    probabilities: np.ndarray | None = None
    scores: np.ndarray | None = None
    last_hidden_state: np.ndarray | None = None
    pooler_output: np.ndarray | None = None
    trusted: np.ndarray | None = None
    breaches: list[Breaches] = field(default_factory=list)
    sentence_embedding: np.ndarray | None = None
    cost: Cost | None = None
    notes: list[str] = field(default_factory=list)
    profile_source: str = ""
    encoder_only: bool = False
    answers: Sequence[Answer] | None = None

    @property
    def embeddings(self) -> np.ndarray:
        """Sentence embeddings: what the modules of a sentence-transformers folder make, (B, D); for another encoder,
        hidden states averaged over the attended tokens, (B, C), of unit length.

        Raises InputError for a model with a head.
        """
        if self.sentence_embedding is not None:
            return self.sentence_embedding
        if not self.encoder_only or self.last_hidden_state is None:
            raise InputError("only encoders without a head (such as BertModel) have embeddings; this model answers "
                             "with logits")
        weights = self.attention_mask[:, :, None].astype(np.float64)
        return unit((self.last_hidden_state * weights).sum(1) / weights.sum(1))

    def part(self, start: int, stop: int) -> SecureOutput:
        """Of the texts from `start` up to, and without, `stop`. Arrays keep the longest text's length; the cost and the
        notes stay those of all texts."""
        per_text: dict[str, Any] = {f.name: value[start:stop] for f in fields(self)
                                    if isinstance(value := getattr(self, f.name), np.ndarray)
                                    or (f.name in LISTED and value is not None)}
        return replace(self, **per_text)

    def as_dict(self, *, hidden: bool = False) -> dict[str, Any]:
        """Plain lists and numbers, for JSON. Hidden states are large, so they are included only with `hidden`."""
        out: dict[str, Any] = {}
        names = ["labels", "probabilities", "scores", "logits", "prediction_logits", "seq_relationship_logits",
                 "start_logits", "end_logits"]
        names += ["last_hidden_state", "pooler_output", "attention_mask"] if hidden else []
        for name in names:
            value = getattr(self, name)
            if value is not None:
                out[name] = _listed(value) if isinstance(value, np.ndarray) else value
        if self.encoder_only and (self.last_hidden_state is not None or self.sentence_embedding is not None):
            out["embeddings"] = _listed(self.embeddings)
        if self.trusted is not None:
            out["trusted"] = self.trusted.tolist()
            out["breaches"] = [list(each) for each in self.breaches]
        if self.answers is not None:
            out["answers"] = [None if answer is None else facts(answer) for answer in self.answers]
        out["cost"] = self.cost.as_dict() if self.cost is not None else None
        return out | {"notes": list(self.notes), "profile": self.profile_source}


def assemble(architecture: Architecture, rows: Sequence[Row], results: Sequence[Mapping[str, np.ndarray]], *,
             cost: Cost | None, notes: Sequence[str], profile_source: str, answers: Sequence[Answer] | None = None,
             guard: str = "mark") -> SecureOutput:
    """Puts each text's results, by name, (T, ...) or (...), into padded arrays of all texts, and adds labels.

    guard  what is done about texts that cannot be trusted, as in `Settings`. Raises Untrusted with "raise".
    """
    spec, head, by_token = architecture.spec, architecture.head, architecture.results
    left: list[Breaches] = [tuple(map(str, r[GUARD])) for r in results if GUARD in r]
    if guard == "raise":
        refuse(left)
    fields: dict[str, Any] = {name: _stack([r[name] for r in results], rows, by_token[name]) for name in results[0]
                              if name != GUARD}
    fields["answers"] = answers
    logits = fields.get("logits")
    if logits is not None and head is Head.QUESTION:
        del fields["logits"]
        fields["start_logits"], fields["end_logits"] = logits[..., 0], logits[..., 1]
    elif logits is not None and head is Head.REPLACED:
        fields["logits"] = logits[..., 0]
    elif logits is not None and spec.labels and spec.problem != "regression":
        mask = _stack([np.ones(len(r)) for r in rows], rows, True)[..., None] if head is Head.TOKEN else 1.0
        fields["probabilities"] = mask * (sigmoid(logits) if spec.problem == "multi" else softmax(logits))
        fields["labels"] = _labels(spec, head, logits, rows)
    if logits is not None and head is Head.SEQUENCE and len(spec.labels) == 1:
        fields["scores"] = (sigmoid(logits) if spec.score == "sigmoid" else logits)[:, 0]
    if SENTENCE in fields and architecture.unit_embeddings:
        fields[SENTENCE] = unit(fields[SENTENCE])
    if left:
        trusted = np.array([not breaches for breaches in left])
        notes = [*notes, *(note(i, breaches) for i, breaches in enumerate(left) if breaches)]
        if guard == "nan":
            _blank(fields, ~trusted)
        fields |= {"trusted": trusted, "breaches": left}
    return SecureOutput(
        attention_mask=_stack([r.mask for r in rows], rows, True).astype(np.int64),
        cost=cost, notes=list(notes), profile_source=profile_source,
        encoder_only=head is Head.ENCODER, **fields,
    )


def _listed(values: np.ndarray) -> Any:
    """Nested lists of numbers, with None for NaN, which JSON does not know."""
    bad = np.isnan(values)
    if bad.any():
        values = values.astype(object)
        values[bad] = None
    return values.tolist()


def _blank(fields: dict[str, Any], bad: np.ndarray) -> None:
    """Replaces the numbers of bad texts by NaN, and what was read off them by None, in place."""
    for name, values in fields.items():
        if isinstance(values, np.ndarray):
            values[bad] = np.nan
        elif values is not None:
            fields[name] = [None if gone else value for value, gone in zip(values, bad, strict=True)]


def unit(x: np.ndarray) -> np.ndarray:
    """x (B, D) with rows of unit length; a row of zeros stays."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.finfo(np.float64).tiny))


def _stack(values: Sequence[np.ndarray], rows: Sequence[Row], tokens: bool) -> np.ndarray:
    if not tokens:
        return np.stack(values)
    out = np.zeros((len(rows), max(map(len, rows)), *values[0].shape[1:]))
    for there, value in zip(out, values, strict=True):
        there[: len(value)] = value
    return out


def _labels(spec: Spec, head: Head, logits: np.ndarray, rows: Sequence[Row]) -> list[str] | list[list[str]] | None:
    if spec.problem == "multi":
        return [[n for n, v in zip(spec.labels, row, strict=True) if v > 0] for row in logits]
    best = logits.argmax(axis=-1)
    if head is Head.TOKEN:
        return [[spec.labels[i] for i in some[: len(row)]] for some, row in zip(best, rows, strict=True)]
    return [spec.labels[i] for i in best]
