"""Tasks by the names that users know, as methods of every model: embed, rerank, classify, entities, fill_mask, answer.

A task is one call of the model, so many texts form batches. What follows is the client's own arithmetic, and gives what
`transformers`' pipelines and sentence-transformers give. No task reveals more than a call of the model does.

B texts, T tokens, D entries of an embedding, L labels, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from secformer.models.data.batch import Row
from secformer.models.data.tokenizer import Places, Reading, Texts, Tokenizer
from secformer.models.families.architecture import Architecture
from secformer.models.families.config import read_config
from secformer.models.families.heads import Head
from secformer.models.run.guard import note
from secformer.models.run.output import SecureOutput
from secformer.models.run.probabilities import sigmoid
from secformer.models.run.progress import Progress
from secformer.models.run.tasks import AnswerSpan, Entities, Entity, fill_masks
from secformer.mpc.errors import InputError, ModelError, SettingsError, Untrusted

Several = list[Any] | tuple[Any, ...] | Mapping[str, Any]  # of texts: a list gives a list
WORDS = (Head.MASKED, Head.PRETRAINING)  # heads that tell the word at each token
TASKS = {Head.ENCODER: "embed", Head.SEQUENCE: "classify", Head.TOKEN: "entities", Head.QUESTION: "answer",
         Head.MASKED: "fill_mask", Head.PRETRAINING: "fill_mask"}
ADVICE = ("a plain result has no place for that mark; guard='nan' (--guard nan on the command line) gives the other "
          "texts' results, with NaN or None for this one")


@dataclass(frozen=True)
class Label:
    """A label of a text, and its score: a probability, or the number that a regression gives."""

    label: str
    score: float


@dataclass(frozen=True)
class Ranked:
    """A document's place in the list that was given, counted from 0, its score for the query, and its text."""

    corpus_id: int
    score: float
    text: str


@dataclass(frozen=True)
class Filled:
    """A word for a mask: its probability, its token's id and text, and the text with the word in the mask's place."""

    score: float
    token: int
    token_str: str
    sequence: str


class Helpers(ABC):
    """The tasks of a model that is called with texts.

    One text (a str) gives one result, and a list gives a list, in the order of the texts. Each task raises what a call
    of the model raises; ModelError where the model's head does not answer that, before anything is computed; and
    Untrusted where a text cannot be trusted and the guard is "mark". With "nan", such a text's result is None, or NaN
    where it is a number.
    """

    architecture: Architecture
    tokenizer: Tokenizer
    guard: str

    @abstractmethod
    def __call__(self, texts: Texts, progress: bool | Progress = False) -> SecureOutput: ...

    @abstractmethod
    def _read(self, texts: Texts) -> Reading:
        """The texts as the model takes them."""

    def embed(self, texts: Texts, *, progress: bool | Progress = False) -> np.ndarray:
        """Sentence embeddings (B, D), as `SentenceTransformer.encode` gives them; (D,) for one text.

        A folder without sentence-transformers' modules gives means over a text's tokens, of unit length.
        """
        self._needs("embed", Head.ENCODER)
        found = self._asked(texts, progress).embeddings
        return np.asarray(found[0] if isinstance(texts, str) else found)

    def rerank(self, query: str, documents: Sequence[str], top_k: int | None = None, *,
               progress: bool | Progress = False) -> list[Ranked]:
        """The documents by their scores for the query, best first, as `CrossEncoder.rank` gives them; equal scores
        keep their order.

        top_k  how many to return; None: all. With the guard "nan", documents that cannot be trusted come last and
               have the score NaN. They are added to the `top_k` others, because any of them could be the best.
        """
        self._needs("rerank", Head.SEQUENCE)
        if (labels := len(self.architecture.spec.labels)) != 1:
            raise ModelError(f"rerank needs a {self._classes(Head.SEQUENCE)} with one output, the score of a document; "
                             f"this model has {labels} labels; call classify for them")
        most = _count(top_k)
        if not isinstance(query, str):
            raise InputError(f"the query must be a str, got {type(query).__name__}")
        pairs = _pairs([query] * _length(documents, "documents"), documents, ("query", "document"))
        scores = np.asarray(self._asked(pairs, progress).scores)
        lost = np.isnan(scores)
        order = [int(i) for i in np.argsort(-scores, kind="stable")]  # NaN is sorted behind all numbers
        kept = [i for i in order if not lost[i]][:most] + [i for i in order if lost[i]]
        return [Ranked(i, float(scores[i]), documents[i]) for i in kept]

    def classify(self, texts: Texts, top_k: int | None = 1, *, progress: bool | Progress = False) -> Any:
        """Each text's best `Label`, as the pipeline "text-classification" gives it; a list of Labels, best first, where
        `top_k` is not 1.

        A score is the softmax of the logits; the sigmoid for a model of several labels per text, and for one with a
        single output; the output itself where the config calls the model a regression.

        top_k  how many labels per text; None: all
        """
        self._needs("classify", Head.SEQUENCE)
        most = _count(top_k)
        out = self._asked(texts, progress)
        found = []
        for scores in self._label_scores(out):
            best = np.argsort(-scores, kind="stable")[:most]
            labels = [Label(self.architecture.spec.labels[i], float(scores[i])) for i in best]
            found.append(None if np.isnan(scores).any() else labels[0] if most == 1 else labels)
        return _given(texts, found)

    @overload
    def entities(self, texts: str, *, progress: bool | Progress = False) -> list[Entity] | None: ...
    @overload
    def entities(self, texts: Several, *, progress: bool | Progress = False) -> list[list[Entity] | None]: ...
    def entities(self, texts: Any, *, progress: bool | Progress = False) -> Any:
        """Each text's entities, in order, as the pipeline "token-classification" with aggregation_strategy="simple"
        gives them. An entity's `text` is the part of the text from `start` to `end`, as it was typed."""
        self._needs("entities", Head.TOKEN)
        self._places(self._read(texts), "entities")
        answers = self._asked(texts, progress).answers or ()
        return _given(texts, [list(each.entities) if isinstance(each, Entities) else None for each in answers])

    def fill_mask(self, texts: Texts, top_k: int | None = 5, *, progress: bool | Progress = False) -> Any:
        """The likeliest words for a text's mask, best first, as the pipeline "fill-mask" gives them: a list of
        `Filled`; for a text of several masks, one such list per mask.

        top_k  how many words per mask; None: the whole vocabulary

        Raises InputError for a text without a mask, before anything is shared.
        """
        self._needs("fill_mask", *WORDS)
        most, mask = _count(top_k), self.tokenizer.mask
        if mask is None:
            raise ModelError(f"the tokenizer in {self.tokenizer.folder} has no mask token, so no word can be asked for")
        read = self._read(texts)
        places = self._places(read, "fill_mask")
        for i, row in enumerate(read.rows):
            if mask[0] not in row.ids:
                cut = " (truncation cut it off)" if any(mask[1] in text for text in places[i].texts) else ""
                raise InputError(f"text {i} has no {mask[1]}{cut}; put one where a word is to be found")
        out = self._asked(texts, progress)
        logits = out.logits if out.prediction_logits is None else out.prediction_logits
        found = [None if np.isnan(each).any() else self._filled(each[: len(row)], row, where, mask[0], most)
                 for each, row, where in zip(np.asarray(logits), read.rows, places, strict=True)]
        return _given(texts, found)

    @overload
    def answer(self, question: str, context: str, *, progress: bool | Progress = False) -> AnswerSpan | None: ...
    @overload
    def answer(self, question: Several, context: str | Several, *,
               progress: bool | Progress = False) -> list[AnswerSpan | None]: ...
    @overload
    def answer(self, question: str, context: Several, *,
               progress: bool | Progress = False) -> list[AnswerSpan | None]: ...
    def answer(self, question: Any, context: Any, *, progress: bool | Progress = False) -> Any:
        """The part of `context` that answers `question` best, as the pipeline "question-answering" gives it: at most 15
        tokens, in whole words, never empty.

        question, context  a str and a str; or two lists of the same length; or a list and a str, which then belongs to
                           each entry of the list
        """
        self._needs("answer", Head.QUESTION)
        sizes = [_length(each, name) for each, name in ((question, "question"), (context, "context"))
                 if not isinstance(each, str)]
        if len(set(sizes)) > 1:
            raise InputError(f"there are {sizes[0]} questions and {sizes[1]} contexts; give as many of both, or one "
                             f"str for all")
        alone, size = not sizes, max(sizes, default=1)
        questions, contexts = ([each] * size if isinstance(each, str) else each for each in (question, context))
        pairs = _pairs(questions, contexts, ("question", "context"))
        for i, places in enumerate(self._places(self._read(pairs), "answer")):
            if not (places.part == 1).any():
                raise InputError(f"context {i} has no token; give the text in which the answer stands")
        found = list(self._asked(pairs, progress).answers or ())
        return found[0] if alone else found

    # ---- what the tasks share ----------------------------------------------------------------------------------------

    def _needs(self, task: str, *heads: Head) -> None:
        if self.architecture.head not in heads:
            own = TASKS.get(self.architecture.head)
            raise ModelError(f"{task} needs a model of the class {self._classes(*heads)}; this one is "
                             f"{self.architecture.spec.architecture}"
                             + (f", so call {own}" if own else ", so call the model itself"))

    def _classes(self, *heads: Head) -> str:
        return self.architecture.class_names(*heads) or (f"(which the family {self.architecture.model_type!r} does not "
                                                         f"have)")

    def _asked(self, texts: Texts, progress: bool | Progress) -> SecureOutput:
        out = self(texts, progress)
        if self.guard == "mark" and (bad := [note(i, each) for i, each in enumerate(out.breaches) if each]):
            raise Untrusted(f"{'; '.join(bad)}; {ADVICE}")
        return out

    def _places(self, read: Reading, task: str) -> list[Places]:
        if read.places is None:
            raise InputError(f"{task} needs texts; token ids have no text to name")
        return read.places

    def _label_scores(self, out: SecureOutput) -> np.ndarray:
        """(B, L)"""
        logits, several = np.asarray(out.logits), len(self.architecture.spec.labels) > 1
        if several and out.probabilities is not None:
            return out.probabilities
        # a single output is called a regression by the spec whether or not the config says so
        stated = read_config(self.tokenizer.folder).get("problem_type") == "regression"
        return logits if several or stated else sigmoid(logits)

    def _filled(self, logits: np.ndarray, row: Row, places: Places, mask: int, most: int | None) -> Any:
        """One list of words for one mask, and one per mask for several."""
        at = np.flatnonzero(row.ids == mask)
        found = []
        for token, each in zip(at, fill_masks(logits, row, places, self.tokenizer, most).masks, strict=True):
            ids, words = row.ids.copy(), []
            for word in each.words:
                ids[token] = word.id  # where other masks are left, they would go with the special tokens
                sequence = self.tokenizer.words(ids.tolist(), special=len(at) > 1)
                words.append(Filled(word.probability, word.id, word.word, sequence))
            found.append(words)
        return found[0] if len(at) == 1 else found


def _given(texts: Any, found: list[Any]) -> Any:
    return found[0] if isinstance(texts, str) else found


def _count(top_k: int | None) -> int | None:
    if top_k is None or (isinstance(top_k, int) and not isinstance(top_k, bool) and top_k > 0):
        return top_k
    raise SettingsError(f"top_k must be a positive whole number, or None for all, got {top_k!r}")


def _length(texts: Any, name: str) -> int:
    if not isinstance(texts, Sequence) or isinstance(texts, str | bytes):
        raise InputError(f"{name} must be a list of str, got {type(texts).__name__}")
    return len(texts)


def _pairs(first: Sequence[str], second: Sequence[str], names: tuple[str, str]) -> list[tuple[str, str]]:
    pairs = list(zip(first, second, strict=True))
    if not pairs:
        raise InputError(f"there is no {names[1]}, or no {names[0]}; give at least one of both")
    for i, pair in enumerate(pairs):
        if not all(isinstance(text, str) for text in pair):
            raise InputError(f"{names[1]} {i} and its {names[0]} must be str, got "
                             f"{' and '.join(type(text).__name__ for text in pair)}")
    return pairs
