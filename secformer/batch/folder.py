"""The folder of a job beside its output: a part file for each finished chunk, so that a job that was stopped goes on.

A part is there whole or not at all: it is written under another name, synced and renamed. So each row is written once,
whenever the driver ends. `job.json` says what the parts belong to. At the end they are joined into the output, and the
folder goes.

    OUT.parts/job.json    what must be the same for the job to go on
    OUT.parts/N.arrow     the answers of chunk N
    OUT.parts/whole       the output, before it is renamed
    OUT.parts/done.json   the output is whole; its summary
    OUT.parts/lock        held by the driver
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from secformer.batch.stopped import AGAIN, Stopped, cannot_write
from secformer.mpc.dealer.files import rewrite, sync_folder
from secformer.mpc.dealer.locking import Lock
from secformer.mpc.errors import InputError
from secformer.mpc.strict_json import read_own

FORMAT = "secformer batch 1"
JOB, DONE, LOCK = "job.json", "done.json", "lock"
ENDING = ".parts"  # behind the output's name
ENDS = 1 << 16     # bytes at either end of an input that its fingerprint has


class JobFolder:
    """A job's folder, locked. Use it as a context manager."""

    def __init__(self, output: Path):
        """Makes the folder if it is not there. Raises StoreError where another driver works in it, and Stopped."""
        self.output, self.path = output, output.with_name(output.name + ENDING)
        try:
            self._lock = Lock(self.path / LOCK, "the job's folder", "two drivers would ask each row twice")
        except OSError as error:
            raise cannot_write(self.path, error) from error

    # ---- what the parts belong to --------------------------------------------------------------------------------

    def begin(self, facts: Mapping[str, Any], *, restart: bool) -> None:
        """Takes up the job, or begins it. Raises InputError where the parts are another job's, and Stopped."""
        path = self.path / JOB
        wanted = json.loads(json.dumps({"format": FORMAT, **facts}))
        if path.exists() and not restart:
            try:
                held = read_own(path.read_bytes())
                differ = sorted(name for name in {*held, *wanted} if held.get(name) != wanted.get(name))
            except (OSError, ValueError, TypeError, AttributeError) as error:
                raise InputError(f"{path} cannot be read ({error}); --restart throws the parts away and begins "
                                 f"again") from error
            if differ:
                told = "; ".join(f"{name} was {held.get(name)!r} and is {wanted.get(name)!r}" for name in differ)
                raise InputError(f"{self.path} holds the parts of another job: {told}. Run that one again as it was, "
                                 f"or give --restart, which throws its parts away")
            return
        try:
            self._clear(JOB, DONE)
            rewrite(path, json.dumps(wanted, indent=1) + "\n")
        except OSError as error:
            raise cannot_write(path, error) from error

    def _clear(self, *order: str) -> None:
        """Throws away what is here but the lock: these files in this order, then the parts. Parts without a `job.json`
        are nobody's."""
        for name in order:
            (self.path / name).unlink(missing_ok=True)
        for each in self.path.iterdir():
            if each.name != LOCK:
                each.unlink()

    # ---- parts ---------------------------------------------------------------------------------------------------

    def has(self, number: int) -> bool:
        return self._part(number).exists()

    def write(self, number: int, table: pa.Table) -> None:
        """Keeps a chunk's answers. Raises Stopped."""
        path = self._part(number)
        part = path.with_suffix(".writing")
        try:
            with part.open("wb") as file:
                with pa.ipc.new_file(file, table.schema) as writer:
                    writer.write_table(table)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            sync_folder(self.path)
        except OSError as error:
            raise cannot_write(path, error) from error

    def parts(self, count: int, schema: pa.Schema) -> Iterator[pa.Table]:
        """The answers of the chunks 0 to `count`, in order. Raises Stopped for a part that is not as it was written."""
        for number in range(count):
            path = self._part(number)
            try:
                with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
                    table = reader.read_all()
            except (OSError, pa.ArrowException) as error:
                raise Stopped(f"{path} cannot be read ({error}); remove it, then {AGAIN}") from error
            if not table.schema.equals(schema):
                raise Stopped(f"{path} has other columns than this job writes; remove it, then {AGAIN}")
            yield table

    def _part(self, number: int) -> Path:
        return self.path / f"{number}.arrow"

    # ---- the end -------------------------------------------------------------------------------------------------

    @property
    def whole(self) -> Path:
        """Where the output is written before it has its name."""
        return self.path / "whole"

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Gives the whole output its name, and removes the folder. Raises Stopped."""
        try:
            rewrite(self.path / DONE, json.dumps(summary))
            self._put()
        except OSError as error:
            raise cannot_write(self.output, error) from error

    def finished(self) -> dict[str, Any] | None:
        """Ends what an earlier driver had all but ended, and gives its summary; None where there is something to do."""
        path = self.path / DONE
        if not path.exists():
            return None
        try:
            summary: dict[str, Any] = read_own(path.read_bytes())
            self._put()
        except OSError as error:
            raise cannot_write(self.output, error) from error
        return summary

    def _put(self) -> None:
        """Renames, and then removes the folder; `done.json` goes when nothing is left to do."""
        if self.whole.exists():
            self.whole.replace(self.output)
            sync_folder(self.output.absolute().parent)
        for each in self.path.iterdir():
            if each.name not in (JOB, DONE, LOCK):
                each.unlink()
        for name in (DONE, JOB, LOCK):
            (self.path / name).unlink(missing_ok=True)
        self.path.rmdir()

    def __enter__(self) -> JobFolder:
        return self

    def __exit__(self, *args: Any) -> None:
        self._lock.close()


def fingerprint(path: Path) -> dict[str, Any]:
    """What tells an input from another one, or from what it was: size, time of its last change, and its two ends.

    Raises OSError.
    """
    with path.open("rb") as file:
        facts = os.fstat(file.fileno())
        h = hashlib.sha256(file.read(ENDS))
        file.seek(max(0, facts.st_size - ENDS))
        h.update(file.read(ENDS))
    return {"input size": facts.st_size, "input changed": facts.st_mtime_ns, "input ends": h.hexdigest()}
