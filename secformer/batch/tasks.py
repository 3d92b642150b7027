"""What a job asks of each row: a table of tasks, each with the columns that it reads and those that it writes.

A task turns texts into units (one per row, tokenised by the driver) and, at a cell's worker, units into answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import pyarrow as pa

from secformer.gateway.cells import Model
from secformer.models.data.batch import Row
from secformer.models.data.tokenizer import Places, Reading, Tokenizer
from secformer.models.families.architecture import Architecture
from secformer.models.families.heads import Head
from secformer.models.generation.prompts import as_prompt, render
from secformer.models.run.asked import Asked
from secformer.models.run.decoding import decoder_of
from secformer.models.run.generate import sampling_of
from secformer.mpc.errors import InputError, ModelError

TEXT, QUERY, DOCUMENT = "text", "query", "document"  # what a task reads, and the columns' usual names
ROW_BITS = 64  # of a generation's seed: the row's number; the job's own seed stands above them
LEFT_OUT = "nan"  # the guard: texts that cannot be trusted end no call; their answers are left out here
PROBE = "a"    # a text that every model can hold


@dataclass(frozen=True)
class Unit:
    """What a cell is asked of one row. `repr` shows its size alone: the rest is secret.

    length  tokens
    """

    length: int
    row: Row | None = field(default=None, repr=False)
    places: Places | None = field(default=None, repr=False)
    prompt: tuple[int, ...] = field(default=(), repr=False)
    seed: int = field(default=0, repr=False)


@dataclass(frozen=True)
class Answers:
    """What a call gave: the task's columns, each with one value per unit, None for a text that cannot be trusted.

    trusted  per unit; None where nothing was checked
    bytes    that the parties exchanged, corrections of the dealer included
    """

    columns: Mapping[str, pa.Array] = field(repr=False)
    trusted: Sequence[bool | None]
    bytes: int


class Task(ABC):
    """One kind of question. `inputs` are what it reads of a row, by the names of the options."""

    name: str
    inputs: tuple[str, ...] = (TEXT,)
    heads: tuple[Head, ...]

    def require(self, architecture: Architecture) -> None:
        """Raises ModelError where the model does not answer this."""
        if architecture.head not in self.heads:
            raise ModelError(f"{self.name} needs a model of the class {architecture.class_names(*self.heads)}; the "
                             f"cells hold a {architecture.spec.architecture}")

    @property
    def options(self) -> dict[str, Any]:
        """What must be the same when a job goes on."""
        return {"task": self.name}

    @abstractmethod
    def fields(self, architecture: Architecture) -> list[pa.Field]:
        """The columns that it writes."""

    @abstractmethod
    def units(self, tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], rows: Sequence[int],
              truncation: bool) -> list[Unit]:
        """One per row; `texts` has those of `inputs`, `rows` the numbers of the rows. Raises InputError."""

    @abstractmethod
    def ask(self, model: Model, units: Sequence[Unit], architecture: Architecture) -> Answers:
        """Raises as a call of the model."""

    def probe(self, tokenizer: Tokenizer) -> Unit:
        """A question that a healthy cell answers, and whose answer nobody needs."""
        return self.units(tokenizer, [(PROBE,) * len(self.inputs)], [0], True)[0]


class Reads(Task):
    """A task that is one call of the model for all texts."""

    placed = False  # whether answers name parts of the text

    def units(self, tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], rows: Sequence[int],
              truncation: bool) -> list[Unit]:
        given = [each[0] for each in texts] if len(self.inputs) == 1 else list(texts)
        read = tokenizer.read(cast("Any", given), truncation=truncation)
        places = read.places if self.placed and read.places is not None else [None] * len(read.rows)
        return [Unit(len(row), row, place) for row, place in zip(read.rows, places, strict=True)]

    def ask(self, model: Model, units: Sequence[Unit], architecture: Architecture) -> Answers:
        places = [cast("Places", unit.places) for unit in units] if self.placed else None
        reading = Reading([cast("Row", unit.row) for unit in units], places)
        asked = Asked(model.architecture, model.tokenizer, LEFT_OUT, False, lambda texts, progress: model(texts))
        columns, out, cost = self.answers(asked, reading, architecture), asked.output, asked.output.cost
        trusted = [None] * len(units) if out.trusted is None else out.trusted.tolist()
        kept = pa.array(range(len(units)), pa.int64(), mask=np.array([each is False for each in trusted]))
        return Answers({name: column.take(kept) for name, column in columns.items()}, trusted,
                       0 if cost is None else cost.bytes + cost.dealer_bytes)

    @abstractmethod
    def answers(self, model: Asked, reading: Reading, architecture: Architecture) -> dict[str, pa.Array]:
        """The columns, from one call of the model, as if all texts could be trusted."""

    def _made(self, architecture: Architecture, *values: Any) -> dict[str, pa.Array]:
        return {f.name: pa.array(each, f.type) for f, each in zip(self.fields(architecture), values, strict=True)}


class Embed(Reads):
    name, heads = "embed", (Head.ENCODER,)

    def fields(self, architecture: Architecture) -> list[pa.Field]:
        return [pa.field("embedding", pa.list_(pa.float32(), architecture.embedding_size))]

    def answers(self, model: Asked, reading: Reading, architecture: Architecture) -> dict[str, pa.Array]:
        flat = pa.array(np.asarray(model.embed(reading), dtype=np.float32).reshape(-1))
        return {"embedding": pa.FixedSizeListArray.from_arrays(flat, architecture.embedding_size)}


class Classify(Reads):
    name, heads = "classify", (Head.SEQUENCE,)

    def fields(self, architecture: Architecture) -> list[pa.Field]:
        return [pa.field("label", pa.string()), pa.field("score", pa.float64()),
                pa.field("scores", pa.list_(pa.float64()))]

    def answers(self, model: Asked, reading: Reading, architecture: Architecture) -> dict[str, pa.Array]:
        """The best label and its score; `scores` are those of all labels, in the model's order."""
        ranked = model.classify(reading, top_k=None)
        place = {label: i for i, label in enumerate(architecture.spec.labels)}
        scores = [labels and [each.score for each in sorted(labels, key=lambda one: place[one.label])]
                  for labels in ranked]
        return self._made(architecture, [labels and labels[0].label for labels in ranked],
                          [labels and labels[0].score for labels in ranked], scores)


class Rerank(Reads):
    name, heads, inputs = "rerank", (Head.SEQUENCE,), (QUERY, DOCUMENT)

    def require(self, architecture: Architecture) -> None:
        super().require(architecture)
        if (labels := len(architecture.spec.labels)) != 1:
            raise ModelError(f"rerank needs a model with one output, the score of a document; the cells' model has "
                             f"{labels} labels, so use --task classify")

    def fields(self, architecture: Architecture) -> list[pa.Field]:
        return [pa.field("score", pa.float64())]

    def answers(self, model: Asked, reading: Reading, architecture: Architecture) -> dict[str, pa.Array]:
        return self._made(architecture, np.asarray(model(reading).scores, dtype=np.float64))


class Entities(Reads):
    name, heads, placed = "entities", (Head.TOKEN,), True

    def fields(self, architecture: Architecture) -> list[pa.Field]:
        entity = pa.struct([("label", pa.string()), ("text", pa.string()), ("score", pa.float64()),
                            ("start", pa.int64()), ("end", pa.int64())])
        return [pa.field("entities", pa.list_(entity))]

    def answers(self, model: Asked, reading: Reading, architecture: Architecture) -> dict[str, pa.Array]:
        """`start` and `end` count characters of the text, from 0."""
        found = model.entities(cast("Any", reading))
        return self._made(architecture, [None if each is None else [
            {name: value for name, value in asdict(entity).items() if name != "part"} for entity in each]
            for each in found])


class Generate(Task):
    """Text behind a prompt. A row's seed comes from the job's seed and the row's number, so a rerun writes the same.

    sampling  fields of `Sampling` without its seed
    seed      of the job
    system    a system prompt, for models with a chat template
    continued the text is continued as it stands, although the model has a chat template
    """

    name = "generate"

    def __init__(self, sampling: Mapping[str, Any] | None = None, *, seed: int = 0, system: str | None = None,
                 continued: bool = False):
        """Raises SettingsError."""
        self.sampling, self.seed, self.system, self.continued = dict(sampling or {}), seed, system, continued
        if continued and system is not None:
            raise InputError("a system prompt is for a conversation; leave it out, or do not continue the texts")
        self._new = sampling_of({**self.sampling, "seed": seed}).max_new_tokens

    @property
    def options(self) -> dict[str, Any]:
        return {"task": self.name, "sampling": self.sampling, "seed": self.seed, "system": self.system,
                "continued": self.continued}

    def require(self, architecture: Architecture) -> None:
        decoder_of(architecture)

    def fields(self, architecture: Architecture) -> list[pa.Field]:
        return [pa.field("generated", pa.string()), pa.field("end", pa.string()), pa.field("tokens", pa.int64())]

    def units(self, tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], rows: Sequence[int],
              truncation: bool) -> list[Unit]:
        """Prompts are never cut: what is asked stands at their end."""
        found = []
        for (text,), row in zip(texts, rows, strict=True):
            prompt = as_prompt(tokenizer, text, system=self.system, continued=self.continued)
            ids = render(tokenizer, prompt, self._new).ids
            found.append(Unit(len(ids) + self._new, prompt=ids, seed=(self.seed << ROW_BITS) + row))
        return found

    def ask(self, model: Model, units: Sequence[Unit], architecture: Architecture) -> Answers:
        texts, ends, tokens, trusted, size = list[Any](), list[Any](), list[Any](), list[bool | None](), 0
        for unit in units:
            with model.generate({"input_ids": [list(unit.prompt)]}, stream=True, seed=unit.seed,
                                **cast("Any", self.sampling)) as running:
                for _ in running:
                    pass
                found = running.result
            texts.append(found.text if found.trusted else None)
            ends.append(found.end.value if found.trusted else None)
            tokens.append(len(found.tokens) if found.trusted else None)
            trusted.append(found.trusted)
            size += found.cost.bytes + found.cost.dealer_bytes
        made = zip(self.fields(architecture), (texts, ends, tokens), strict=True)
        return Answers({f.name: pa.array(each, f.type) for f, each in made}, trusted, size)


READING: dict[str, type[Reads]] = {each.name: each for each in (Embed, Classify, Rerank, Entities)}
NAMES = (*READING, Generate.name)
