"""What the tests of batch jobs share: cells that nobody needs to start, files of rows, models that fail on demand."""

from __future__ import annotations

import csv
import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cells_lab import cells_file, client_file

from secformer.batch.crew import ThreadCrew
from secformer.batch.job import Job, Summary, run_job
from secformer.batch.tasks import Classify, Task
from secformer.batch.worker import Opener
from secformer.models.data.tokenizer import Reading, Texts
from secformer.models.data.tokenizer_files import write_for_clients
from secformer.models.families.folder import ModelFolder
from secformer.models.families.program import GUARD
from secformer.models.ranges.profile import RangeProfile
from secformer.models.run.output import SecureOutput, assemble
from secformer.models.run.public import PUBLIC, PublicModel
from secformer.models.run.tasks import answers
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.meter import Cost
from secformer.mpc.ring import WORD_BITS
from secformer.protocols.recipes import FAITHFUL
from secformer.roles.settings import ClientSettings

WORDS = ("a", "the", "cat", "dog", "sat", "ran", "on", "mat", "good", "bad")


def client_folder(model: Path, folder: Path, **changes: Any) -> Path:
    """What clients get of a model, as far as the driver reads it. `changes` are fields of PublicModel."""
    own, folder = ModelFolder(model), folder / "model"
    folder.mkdir(parents=True)
    facts: dict[str, Any] = {
        "architecture": own.architecture, "recipe": FAITHFUL, "fixed": FixedPoint(16, 14), "width": WORD_BITS,
        "profile": RangeProfile(folder.parent.name, "exact", 1, 1), "names": ("logits", GUARD), "books": {},
        "salt": folder.parent.name, **changes}
    (folder / PUBLIC).write_text(PublicModel(**facts).to_json())
    write_for_clients(model, folder)
    return folder


def cells(folder: Path, model: Path, names: Sequence[str] = ("a", "b"), **settings: Any) -> Path:
    """A list of cells that hold one model."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        client_folder(model, folder / name)
        client_file(folder / name, (9000 + 2 * number, 9001 + 2 * number), batch_tokens=64, **settings)
    return cells_file(folder, {name: f"{name}/client.toml" for name in names})


class Instant:
    """A model whose answers follow from the ids of a text, without computing anything. It stands for every cell's.

    before     called with a cell's first port and the texts before each answer; it may raise
    untrusted  whether a text, by its ids, cannot be trusted; None: nothing is checked
    """

    guard = "mark"

    def __init__(self, folder: Path, before: Callable[[int, Reading], None] = lambda port, texts: None,
                 untrusted: Callable[[tuple[int, ...]], bool] | None = None):
        own = ModelFolder(folder)
        self.architecture, self.tokenizer = own.architecture, own.tokenizer
        self.before, self.untrusted, self.lock = before, untrusted, threading.Lock()
        self.calls: list[tuple[int, int]] = []           # port, texts
        self.rows: Counter[tuple[int, ...]] = Counter()  # ids that were answered

    def __call__(self, settings: ClientSettings) -> Any:
        """As an opener."""
        return _Lane(self, settings.party0[1])

    def answer(self, texts: Texts) -> SecureOutput:
        read = self.tokenizer.read(texts)
        results = [self._result(row.ids) for row in read.rows]
        return assemble(self.architecture, read.rows, results, cost=Cost(bytes=100 * len(read.rows)), notes=[],
                        profile_source="", answers=answers(self.architecture, read, results, self.tokenizer))

    def _result(self, ids: np.ndarray) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, by_token in self.architecture.results.items():
            hidden = name in ("last_hidden_state", "pooler_output")
            width = self.architecture.hidden_size if hidden else len(self.architecture.spec.labels)
            turns = ids[:, None] if by_token else np.array([ids @ np.arange(1, len(ids) + 1)])
            found[name] = np.sin(turns * np.arange(1, width + 1.0))
        if self.untrusted is not None:
            found[GUARD] = ("somewhere",) if self.untrusted(tuple(ids.tolist())) else ()
        return found


class _Lane:
    def __init__(self, model: Instant, port: int):
        self._model, self._port = model, port
        self.architecture, self.tokenizer = model.architecture, model.tokenizer

    def __call__(self, texts: Texts) -> SecureOutput:
        assert isinstance(texts, Reading)
        with self._model.lock:
            self._model.calls.append((self._port, len(texts.rows)))
        self._model.before(self._port, texts)
        out = self._model.answer(texts)
        with self._model.lock:
            self._model.rows.update(tuple(row.ids.tolist()) for row in texts.rows)
        return out

    def close(self) -> None:
        pass


def texts(count: int) -> list[str]:
    """Texts of many lengths, no two alike."""
    found = []
    for i in range(count):
        digits = [WORDS[int(d)] for d in f"{i:04}"]
        found.append(" ".join([*digits, *["cat"] * (7 * i % 13)]))
    return found


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=37)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def job(source: Path, output: Path, cells: Path, task: Task | None = None, **options: Any) -> Job:
    chosen = task or Classify()
    return Job(source, output, cells, chosen, options.pop("columns", chosen.inputs), **{"chunk": 10, **options})


def ran(job: Job, opener: Opener, **more: Any) -> Summary:
    """A job whose workers are threads."""
    return run_job(job, hire=ThreadCrew, opener=opener, **more)
