"""Labelled texts: GLUE's tasks, and files of one's own. Needs no torch.

Tab-separated files have a header and are split at tabs, without quoting, as GLUE's; JSON lines have one object a line.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from secformer.models.families.architecture import Architecture
from secformer.models.families.heads import Head
from secformer.mpc.errors import InputError, ModelError, SettingsError

PathLike = str | os.PathLike[str]
FILES = {"train": "train.tsv", "dev": "dev.tsv"}
JSON = (".jsonl", ".json")


@dataclass(frozen=True)
class Task:
    """What is predicted from which columns.

    labels   names by label id; one for a regression, whose label column holds numbers
    metrics  names in `scores.METRICS`; the first one chooses checkpoints
    folder   GLUE's name for the task's folder
    ids      the label column holds ids rather than names
    """

    name: str
    columns: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    folder: str = ""
    ids: bool = True

    @property
    def regression(self) -> bool:
        return len(self.labels) == 1


@dataclass(frozen=True, eq=False)
class Examples:
    """Texts (or pairs) and their labels: ids, int64, or numbers, float64, (B,)."""

    texts: list[str] | list[tuple[str, str]]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, limit: int | None) -> Examples:
        return self if limit is None else Examples(self.texts[:limit], self.labels[:limit])


ONE, TWO = ("sentence1",), ("sentence1", "sentence2")
TASKS: Mapping[str, Task] = MappingProxyType({t.name: t for t in (
    Task("sst2", ONE, "label", ("negative", "positive"), ("accuracy",), "SST-2"),
    Task("cola", ONE, "label", ("unacceptable", "acceptable"), ("matthews", "accuracy"), "CoLA"),
    Task("rte", TWO, "label", ("entailment", "not_entailment"), ("accuracy",), "RTE"),
    Task("mrpc", TWO, "label", ("not_equivalent", "equivalent"), ("f1", "accuracy"), "MRPC"),
    Task("stsb", TWO, "label", ("similarity",), ("pearson", "spearman"), "STS-B"),
)})


def task_named(name: str) -> Task:
    """A GLUE task. Raises SettingsError that lists the names."""
    if name not in TASKS:
        raise SettingsError(f"task must be one of {', '.join(TASKS)}, or give your own files; got {name!r}")
    return TASKS[name]


def own_task(train: PathLike, columns: Sequence[str], label: str, *, regression: bool = False) -> Task:
    """A task of one's own: labels are the names found in the training file, in alphabetical order."""
    if len(columns) not in (1, 2):
        raise SettingsError(f"a text is one column, or a pair of two; got {len(columns)}: {', '.join(columns)}")
    if regression:
        return Task("own", tuple(columns), label, (label,), ("pearson", "spearman"))
    names = sorted({str(row[label]) for row in _rows(Path(train), (*columns, label))})
    if len(names) < 2:
        raise InputError(f"{train}: column {label!r} holds the single label {names[0]!r}; a classifier needs two or "
                         f"more (for numbers, ask for a regression)")
    metrics = ("accuracy", "f1") if len(names) == 2 else ("accuracy",)
    return Task("own", tuple(columns), label, tuple(names), metrics, ids=False)


def for_model(task: Task, architecture: Architecture, where: PathLike) -> Task:
    """The task with the model's label ids. Raises ModelError where its head does not fit the task."""
    spec = architecture.spec
    if architecture.head is not Head.SEQUENCE:
        raise ModelError(f"{where} is a {spec.architecture}; the task {task.name} needs a "
                         f"{architecture.classes(Head.SEQUENCE)}: fine-tune it first with secformer finetune")
    if len(spec.labels) != len(task.labels):
        raise ModelError(f"{where} answers with {len(spec.labels)} label(s) ({', '.join(spec.labels)}), the task "
                         f"{task.name} has {len(task.labels)} ({', '.join(task.labels)}); take a model of this task")
    if task.ids or task.regression:
        return task
    if set(spec.labels) != set(task.labels):
        raise ModelError(f"{where} knows the labels {', '.join(spec.labels)}; the files have "
                         f"{', '.join(task.labels)}; take a model of this task")
    return replace(task, labels=spec.labels)


def glue_file(folder: PathLike, task: Task, split: str) -> Path:
    """`split` of a task in a folder that holds its files, or GLUE's folders. Raises InputError where it is missing."""
    tried = [Path(folder) / FILES[split], Path(folder) / task.folder / FILES[split]]
    for path in tried:
        if path.is_file():
            return path
    raise InputError(f"no {split} file of {task.name}: tried {' and '.join(map(str, tried))}")


def read(path: PathLike, task: Task) -> Examples:
    """The examples of a file. Raises InputError for a missing or empty file, missing columns and unknown labels."""
    path = Path(path)
    rows = _rows(path, (*task.columns, task.label))
    labels = [_label(row[task.label], task, f"{path}, line {row['']}") for row in rows]
    texts: Any = [tuple(str(row[c]) for c in task.columns) for row in rows]
    if len(task.columns) == 1:
        texts = [text for (text,) in texts]
    return Examples(texts, np.array(labels, np.float64 if task.regression else np.int64))


def some(examples: Examples, count: int | None, seed: int) -> Examples:
    """A fixed choice of `count` examples, in their order; all of them for None."""
    if count is None or count >= len(examples):
        return examples
    if count < 1:
        raise SettingsError(f"training takes at least one text, got {count}")
    places = np.sort(np.random.default_rng(seed).permutation(len(examples))[:count])
    texts: Any = [examples.texts[i] for i in places]
    return Examples(texts, examples.labels[places])


def _label(value: Any, task: Task, where: str) -> float | int:
    if task.regression:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{where}: {task.label!r} must be a number, got {value!r}")
        return number
    known = [str(i) for i in range(len(task.labels))] if task.ids else list(task.labels)
    if str(value) not in known:
        raise InputError(f"{where}: label {str(value)!r} is unknown; the task {task.name} has {', '.join(known)}")
    return known.index(str(value))


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The named columns of every row; under "" its line number."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}; give a UTF-8 file") from error
    lines = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip("\r")]
    found = _json_rows(path, lines) if path.suffix in JSON else _tab_rows(path, lines)
    if not found:
        raise InputError(f"{path} has no examples; give a header and at least one line")
    for row in found:
        if missing := [c for c in columns if c not in row]:
            there = ", ".join(sorted(k for k in row if k))
            raise InputError(f"{path}, line {row['']}: no column {missing[0]!r}; there are {there}")
    return found


def _tab_rows(path: Path, lines: list[tuple[int, str]]) -> list[dict[str, Any]]:
    if not lines:
        return []
    header = lines[0][1].rstrip("\r").split("\t")
    rows = []
    for number, line in lines[1:]:
        cells = line.rstrip("\r").split("\t")
        if len(cells) != len(header):
            raise InputError(f"{path}, line {number}: {len(cells)} cells, the header has {len(header)}; cells are "
                             f"split at tabs, without quoting")
        rows.append(dict(zip(header, cells, strict=True)) | {"": number})
    return rows


def _json_rows(path: Path, lines: list[tuple[int, str]]) -> list[dict[str, Any]]:
    rows = []
    for number, line in lines:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: not JSON ({error}); give one object a line") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: a {type(row).__name__}; give one object a line")
        rows.append(row | {"": number})
    return rows
