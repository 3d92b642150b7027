"""What answers say, text by text: the words for masks, the answer to a question, the entities of a text.

These are what `transformers`' pipelines make of the same logits: "fill-mask", "question-answering", and
"token-classification" with aggregation_strategy="simple". Positions count characters of the text, from 0.

T tokens of a text, L labels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from secformer.models.data.batch import Row
from secformer.models.data.tokenizer import PARTS, Places, Reading, Tokenizer
from secformer.models.families.architecture import Architecture
from secformer.models.families.heads import Head
from secformer.models.run.probabilities import softmax

BEST = 5          # words that are told for a mask
LONGEST = 15      # tokens that an answer to a question may have
OUTSIDE = "O"     # the label of tokens that belong to no entity
PRETRAINING = "prediction_logits"  # what models for pre-training call the logits of masked words
FIRST, INNER = "B", "I"  # what labels of entities begin with: their first token, their other tokens


@dataclass(frozen=True)
class Word:
    """A word for a mask: its text, the id of its token, and its probability."""

    word: str
    id: int
    probability: float


@dataclass(frozen=True)
class Mask:
    """One mask, and the likeliest words for it, best first.

    start, end  its characters in the text; None where the tokenizer cannot tell
    part        0, or 1 for the second text of a pair
    """

    words: tuple[Word, ...]
    start: int | None
    end: int | None
    part: int


@dataclass(frozen=True)
class FilledMasks:
    """The masks of a text, in order. `note` says why there are none."""

    masks: tuple[Mask, ...]
    note: str = ""


@dataclass(frozen=True)
class AnswerSpan:
    """The part of a passage that answers a question best. `note` says why there is none.

    text        the answer as it stands in the passage, in whole words
    score       probability of its first token times that of its last token
    start, end  its characters in the passage; None where the tokenizer cannot tell, or there is no answer
    """

    text: str
    score: float
    start: int | None
    end: int | None
    note: str = ""


@dataclass(frozen=True)
class Entity:
    """Neighbouring tokens with one label.

    label       its name, without what stands before the first dash, such as "B-" and "I-"
    text        the entity as it stands in the text
    score       mean probability of the labels of its tokens
    start, end  its characters in the text; None where the tokenizer cannot tell
    part        0, or 1 for the second text of a pair
    """

    label: str
    text: str
    score: float
    start: int | None
    end: int | None
    part: int


@dataclass(frozen=True)
class Entities:
    """The entities of a text, in order. The label "O" makes no entity."""

    entities: tuple[Entity, ...]


Answer = FilledMasks | AnswerSpan | Entities


def facts(answer: Any) -> dict[str, Any]:
    """An answer, or another record, as plain dicts, lists and numbers, for JSON."""
    return {name: _plain(value) for name, value in asdict(answer).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def answers(architecture: Architecture, read: Reading, results: Sequence[Mapping[str, np.ndarray]],
            tokenizer: Tokenizer) -> list[Answer] | None:
    """Each text's answer, from its own logits: (T, V) for masks, (T, 2) for questions, (T, L) for entities.

    None for other heads, and for token ids, which have no text.
    """
    head, labels = architecture.head, architecture.spec.labels
    words = head is Head.MASKED or PRETRAINING in architecture.results
    if read.places is None or not (words or head in (Head.QUESTION, Head.TOKEN)):
        return None
    found: list[Answer] = []
    for row, places, result in zip(read.rows, read.places, results, strict=True):
        logits = np.asarray(result[PRETRAINING if PRETRAINING in result else "logits"], dtype=np.float64)
        if words:
            found.append(fill_masks(logits, row, places, tokenizer))
        elif head is Head.QUESTION:
            found.append(answer_span(logits, row, places, tokenizer))
        else:
            found.append(entities(logits, row, places, tokenizer, labels))
    return found


def advice(architecture: Architecture, read: Reading) -> list[str]:
    """Notes on texts that do not suit the model's head."""
    if architecture.head is not Head.NEXT or read.places is None or len(read.places[0].texts) == len(PARTS):
        return []
    return ["this model tells whether the second text of a pair continues the first: it needs pairs, and what it says "
            "of single texts means nothing"]


def fill_masks(logits: np.ndarray, row: Row, places: Places, tokenizer: Tokenizer,
               most: int | None = BEST) -> FilledMasks:
    """The likeliest words for each mask, from logits (T, V): at most `most`, or all of them."""
    mask = tokenizer.mask
    if mask is None:
        return FilledMasks((), "the tokenizer has no mask token, so no word can be asked for")
    masks = []
    for token in np.flatnonzero(row.ids == mask[0]):
        chances = softmax(logits[token])
        best = np.argsort(-chances, kind="stable")[:most]
        words = tuple(Word(tokenizer.words([i]), int(i), float(chances[i])) for i in best)
        masks.append(Mask(words, *_characters(places, int(token), int(token)), max(0, int(places.part[token]))))
    note = "" if masks else f"this text has no {mask[1]}; put one where a word is to be found"
    return FilledMasks(tuple(masks), note)


def answer_span(logits: np.ndarray, row: Row, places: Places, tokenizer: Tokenizer) -> AnswerSpan:
    """The best answer within the second text of a pair, from logits (T, 2) of its start and its end.

    The first token takes part in both softmaxes: models that were trained on questions without an answer point there.
    It is never the answer. Ties go to the earlier start, then to the earlier end.
    """
    if len(places.texts) < 2:
        return _no_answer("this model finds answers in a passage; give pairs: a question and its passage")
    passage = places.part == 1
    if not passage.any():
        return _no_answer("the passage has no token; give the text in which the answer stands")
    allowed = passage.copy()
    allowed[0] = True
    starts, ends = (np.where(passage, softmax(np.where(allowed, one, -np.inf)), 0.0) for one in logits.T)
    tokens = np.arange(len(row))
    length = tokens[None, :] - tokens[:, None] + 1
    scores = np.where((length >= 1) & (length <= LONGEST), starts[:, None] * ends[None, :], -1.0)
    scores[~passage] = scores[:, ~passage] = -1.0
    first, last = (int(i) for i in np.unravel_index(scores.argmax(), scores.shape))
    score = float(scores[first, last])
    whole = [i for i in np.flatnonzero(passage) if places.word[first] <= places.word[i] <= places.word[last]]
    first, last = min(first, int(whole[0])), max(last, int(whole[-1]))
    return AnswerSpan(_text(places, row, first, last, tokenizer), score, *_characters(places, first, last))


def entities(logits: np.ndarray, row: Row, places: Places, tokenizer: Tokenizer, labels: Sequence[str]) -> Entities:
    """The entities of a text, from logits (T, L). A "B-" label begins an entity; other labels continue their own."""
    chances = softmax(logits)
    groups: list[list[int]] = []
    before: tuple[str, int] | None = None  # label and text of the last token
    best = chances.argmax(axis=-1)
    for token in np.flatnonzero(places.part >= 0):
        begins, label = _tag(labels[best[token]])
        this = label, int(places.part[token])
        if this == before and not begins:
            groups[-1].append(int(token))
        else:
            groups.append([int(token)])
        before = this
    found = []
    for group in groups:
        first, last = group[0], group[-1]
        name = labels[best[first]].partition("-")[2] or labels[best[first]]
        if name != OUTSIDE:
            score = float(np.mean([chances[i].max() for i in group]))
            found.append(Entity(name, _text(places, row, first, last, tokenizer), score,
                                *_characters(places, first, last), int(places.part[first])))
    return Entities(tuple(found))


def _tag(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity, and what the labels that continue it have in common with it."""
    mark, dash, name = label.partition("-")
    return (mark == FIRST, name) if dash and mark in (FIRST, INNER) else (False, label)


def _characters(places: Places, first: int, last: int) -> tuple[int | None, int | None]:
    if places.spans is None:
        return None, None
    return int(places.spans[first, 0]), int(places.spans[last, 1])


def _text(places: Places, row: Row, first: int, last: int, tokenizer: Tokenizer) -> str:
    if places.spans is None:
        return tokenizer.words(row.ids[first : last + 1].tolist())
    start, end = _characters(places, first, last)
    return places.texts[int(places.part[first])][start:end]


def _no_answer(note: str) -> AnswerSpan:
    return AnswerSpan("", 0.0, None, None, note)
