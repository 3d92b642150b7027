"""Running a batch job, from its files to its summary."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from secformer.batch.chunks import ERROR, ROW, TRUSTED
from secformer.batch.crew import Hire
from secformer.batch.driver import Driver, Tell, silent
from secformer.batch.folder import DONE, ENDING, JobFolder, fingerprint
from secformer.batch.known import Known, known
from secformer.batch.ray_crew import RayCrew
from secformer.batch.sinks import write
from secformer.batch.sources import Source, ending, open_source
from secformer.batch.stopped import Stopped, cannot_write
from secformer.batch.work import CHUNK as CHUNK
from secformer.batch.work import PATIENCE as PATIENCE
from secformer.batch.work import Job as Job
from secformer.batch.worker import Opener, open_served
from secformer.cells.listing import load_cells
from secformer.mpc.errors import InputError


@dataclass(frozen=True)
class CellSummary:
    """What a cell did in one run of a job: rows answered, and how often it failed."""

    name: str
    rows: int
    failures: int


@dataclass(frozen=True)
class Summary:
    """How a job ended.

    rows      of the output
    failed    of these, rows with an error
    marked    of these, rows whose answers cannot be trusted, and are left out
    answered  rows that this run has asked; the others were there from earlier runs
    seconds, bytes, cells  of this run; bytes between the parties, and from their dealers
    """

    rows: int
    failed: int
    marked: int
    answered: int
    seconds: float
    bytes: int
    cells: tuple[CellSummary, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def run_job(job: Job, tell: Tell = silent, *, hire: Hire | None = None, opener: Opener = open_served) -> Summary:
    """Runs a job, or goes on with it, to its end.

    tell    gets the progress, about once per second
    hire    makes the workers: on Ray, unless another is given
    opener  opens a cell's model at a worker

    Raises SettingsError, ModelError and InputError for what cannot begin; Stopped where the job ends early; StoreError
    where another driver runs it.
    """
    listed = load_cells(job.cells)
    kind, _ = ending(job.output), ending(job.source)
    _require_place(job)
    model = known(listed.cells, job.truncation)
    job.task.require(model.architecture)
    source = open_source(job.source, job.columns, job.carried)
    schema = schema_of(job, source, model)
    with JobFolder(job.output) as folder:
        before = fingerprint(job.source)
        folder.begin(_facts(job, model) | before, restart=job.restart)
        if (ended := folder.finished()) is not None:
            return replace(Summary(**ended), answered=0, seconds=0.0, bytes=0, cells=())
        driver = Driver(job, listed, model, source, schema, folder, tell)
        driver.run(hire or partial(RayCrew, address=job.ray), opener)
        if fingerprint(job.source) != before:
            raise Stopped(f"{job.source} has changed while the job ran, so its parts do not belong together; run the "
                          f"job again with --restart")
        summary = _joined(folder, kind, schema, driver)
        folder.finish(asdict(summary))
    return summary


def schema_of(job: Job, source: Source, model: Known) -> pa.Schema:
    """The output's columns: ids, carried ones, the task's, whether the answer can be trusted, and what is wrong. Raises
    InputError where two have one name."""
    numbers = [] if job.id is not None else [pa.field(ROW, pa.int64())]
    fields = [*numbers, *source.schema, *job.task.fields(model.architecture), pa.field(TRUSTED, pa.bool_()),
              pa.field(ERROR, pa.string())]
    names = [f.name for f in fields]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise InputError(f"the output would have two columns {twice[0]!r}: one of {job.source}, and one of the answers;"
                         f" rename it there, or do not name it with --id or --keep")
    return pa.schema(fields)


def _facts(job: Job, model: Known) -> dict[str, Any]:
    """What must be the same for a job to go on."""
    return {**job.task.options, "columns": list(job.columns), "id": job.id, "keep": list(job.keep), "chunk": job.chunk,
            "model": model.digest}


def _require_place(job: Job) -> None:
    """Raises InputError unless the output can be written."""
    if not job.source.is_file():
        raise InputError(f"{job.source} is not a file; give the file that holds the texts")
    if job.output.is_dir() or not job.output.absolute().parent.is_dir():
        raise InputError(f"{job.output} must be a file in a folder that exists")
    if job.output.exists():
        if os.path.samefile(job.output, job.source):
            raise InputError(f"{job.output} is the input itself; give the output another name")
        ended = (job.output.with_name(job.output.name + ENDING) / DONE).exists()
        if not job.overwrite and not ended:
            raise InputError(f"{job.output} exists; give another name, or --overwrite, which replaces it when the job "
                             f"is done")


def _joined(folder: JobFolder, kind: str, schema: pa.Schema, driver: Driver) -> Summary:
    """Writes the whole output, and counts."""
    rows = failed = marked = 0

    def counted() -> Iterator[pa.Table]:
        nonlocal rows, failed, marked
        for table in folder.parts(driver.chunks, schema):
            rows += len(table)
            failed += len(table) - table.column(ERROR).null_count
            marked += sum(each is False for each in table.column(TRUSTED).to_pylist())
            yield table

    try:
        write(folder.whole, kind, schema, counted())
    except OSError as error:
        raise cannot_write(folder.whole, error) from error
    if rows != driver.rows:
        raise Stopped(f"the parts in {folder.path} hold {rows} rows, but the input has {driver.rows}; run the job "
                      f"again with --restart")
    return Summary(rows, failed, marked, driver.answered, driver.seconds, driver.bytes, _cells(driver))


def _cells(driver: Driver) -> tuple[CellSummary, ...]:
    return tuple(CellSummary(each.name, each.rows, each.failures) for each in driver.stations)
