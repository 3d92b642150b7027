"""Labelled texts: GLUE's tasks, and a user's own files. Works without torch.

Tab-separated files have a header line. As in GLUE, lines are split at tabs, without quoting. Files of JSON lines have
one object per line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from secformer.models.data.checkpoint import PathLike
from secformer.models.families.architecture import Architecture
from secformer.models.families.heads import Head
from secformer.mpc.errors import InputError, ModelError, SettingsError
from secformer.mpc.strict_json import read_foreign

FILES = {"train": "train.tsv", "dev": "dev.tsv"}
JSON = (".jsonl", ".json")


@dataclass(frozen=True)
class Task:
    """What is predicted, from which columns of a file.

    columns  the column of the text, or the two columns of a pair
    label    the column of the label
    labels   names by label id; a single name for a regression, whose label column holds numbers
    metrics  names in `scores.METRICS`; training keeps the parameters that are best by the first one
    folder   GLUE's name for the task's folder
    ids      whether the label column holds ids rather than names
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
    """B texts or pairs, and their labels (B,): ids as int64, or numbers as float64."""

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
    """The GLUE task of a name. Raises SettingsError, which lists the names, for another name."""
    if name not in TASKS:
        raise SettingsError(f"task must be one of {', '.join(TASKS)}, got {name!r}; for another task, give your own "
                            f"files")
    return TASKS[name]


def own_task(train: PathLike, columns: Sequence[str], label: str, *, regression: bool = False) -> Task:
    """A task in a user's own files. The labels are those of the training file, in alphabetical order.

    Raises InputError for a file that cannot be read or has one label only, and SettingsError for other than one or two
    columns.
    """
    if len(columns) not in (1, 2):
        raise SettingsError(f"give one column, or a pair of columns; got {len(columns)}: {', '.join(columns)}")
    if regression:
        return Task("own", tuple(columns), label, (label,), ("pearson", "spearman"))
    names = sorted({str(row[label]) for row in _rows(Path(train), (*columns, label))})
    if len(names) < 2:
        raise InputError(f"{train}: column {label!r} holds the single label {names[0]!r}; a classifier needs two "
                         f"labels or more. If the labels are numbers, ask for a regression")
    metrics = ("accuracy", "f1") if len(names) == 2 else ("accuracy",)
    return Task("own", tuple(columns), label, tuple(names), metrics, ids=False)


def for_model(task: Task, architecture: Architecture, where: PathLike) -> Task:
    """The task with the model's label ids. Raises ModelError where the model's head does not fit the task."""
    spec = architecture.spec
    if architecture.head is not Head.SEQUENCE:
        raise ModelError(f"{where} is a {spec.architecture}; the task {task.name} needs a "
                         f"{architecture.class_names(Head.SEQUENCE)}: fine-tune it first with secformer finetune")
    if len(spec.labels) != len(task.labels):
        raise ModelError(f"{where} answers with {len(spec.labels)} label(s) ({', '.join(spec.labels)}), but "
                         f"the task {task.name} has {len(task.labels)} ({', '.join(task.labels)}); use a model of this "
                         f"task")
    if task.ids or task.regression:
        return task
    if set(spec.labels) != set(task.labels):
        raise ModelError(f"{where} knows the labels {', '.join(spec.labels)}, but the files have "
                         f"{', '.join(task.labels)}; use a model of this task")
    return replace(task, labels=spec.labels)


def glue_file(folder: PathLike, task: Task, split: str) -> Path:
    """The file of a split, in a folder that holds the task's files or GLUE's folders. Raises InputError without one."""
    tried = [Path(folder) / FILES[split], Path(folder) / task.folder / FILES[split]]
    for path in tried:
        if path.is_file():
            return path
    raise InputError(f"found no {split} file of {task.name}: tried {' and '.join(map(str, tried))}")


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
    """A random choice of `count` examples, fixed by `seed`, in their order; for None, all examples."""
    if count is None or count >= len(examples):
        return examples
    if count < 1:
        raise SettingsError(f"training needs at least one text, got {count}")
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
    """Every row by column, with its line number under "". Raises InputError where a column is missing."""
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
            raise InputError(f"{path}, line {row['']}: no column {missing[0]!r}; the columns are {there}")
    return found


def _tab_rows(path: Path, lines: list[tuple[int, str]]) -> list[dict[str, Any]]:
    if not lines:
        return []
    header = lines[0][1].rstrip("\r").split("\t")
    rows = []
    for number, line in lines[1:]:
        cells = line.rstrip("\r").split("\t")
        if len(cells) != len(header):
            raise InputError(f"{path}, line {number}: {len(cells)} cells, but the header has {len(header)}; lines "
                             f"are split at tabs, without quoting")
        rows.append(dict(zip(header, cells, strict=True)) | {"": number})
    return rows


def _json_rows(path: Path, lines: list[tuple[int, str]]) -> list[dict[str, Any]]:
    rows = []
    for number, line in lines:
        try:
            row = read_foreign(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: not JSON ({error}); give one object per line") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: a {type(row).__name__}, not an object; give one object per line")
        rows.append(row | {"": number})
    return rows
