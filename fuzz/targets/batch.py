"""Inputs of batch jobs, and what a job keeps beside its output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzz.mutators import json_text, lines
from fuzz.target import Open, Read, Target, require
from secformer.batch.folder import DONE, JOB, JobFolder
from secformer.batch.rows import PROBLEM
from secformer.batch.sources import open_source

FACTS = {"task": "embed", "chunk": 10}
MARKS = ('"', '""', ",", "\n", "\r\n", "text", "id", "a", "\\", "\x00", "\u00e9")


def rows(ending: str) -> Open:
    @contextmanager
    def opened(folder: Path) -> Iterator[Read]:
        """Every row is a text or has a problem, and chunks lose none."""
        file = folder / f"in{ending}"

        def read(data: bytes) -> None:
            file.write_bytes(data)
            found = [row for piece in open_source(file, ("text",), ("id",)).chunks(3)
                     for row in piece.rows.to_pylist()]
            require(all((row["text 0"] is None) <= (row[PROBLEM] is not None) for row in found), "a text or a problem")
            (again,) = list(open_source(file, ("text",), ("id",)).chunks(len(data) + 1)) or [None]
            require(found == ([] if again is None else again.rows.to_pylist()), "chunks hold the rows of the file")

        yield read

    return opened


@contextmanager
def jobs(folder: Path) -> Iterator[Read]:
    """What says whose the parts are. A job that goes on is the one that it names."""
    with JobFolder(folder / "out.csv") as job:
        def read(data: bytes) -> None:
            (job.path / JOB).write_bytes(data)
            job.begin(FACTS, restart=False)
            require(b"embed" in data and b"10" in data, "the job is the one that is named")

        yield read


@contextmanager
def summaries(folder: Path) -> Iterator[Read]:
    """The summary of a job that has only its folder left to remove."""
    def read(data: bytes) -> None:
        with JobFolder(folder / "out.csv") as job:
            (job.path / DONE).write_bytes(data)
            require(isinstance(job.finished(), dict) and not job.path.exists(), "the folder is gone")

    yield read


TARGETS = (
    Target("rows-json", ("secformer/batch/json_lines.py",), rows(".jsonl"),
           lines('{"text": ', '"a"', "}", "null", "\n")),
    Target("rows-csv", ("secformer/batch/sources.py",), rows(".csv"), lines(*MARKS)),
    Target("job", ("secformer/batch/folder.py",), jobs, json_text()),
    Target("job-done", ("secformer/batch/folder.py",), summaries, json_text()),
)
