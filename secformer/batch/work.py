"""What a batch job is told: what is asked, from which file into which, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secformer.batch.tasks import Task
from secformer.mpc.errors import SettingsError

CHUNK = 1024      # rows of a part file
PATIENCE = 600.0  # seconds for which a job waits while no cell serves


@dataclass(frozen=True)
class Job:
    """What a job does.

    source, output  files: Parquet, CSV or JSON lines, by their endings
    cells           the list of cells (TOML)
    columns         of the source, one for each of the task's inputs
    id              the source's column that names rows; None: rows have numbers, from 0
    keep            further columns that go into the output as they are
    chunk           rows of a part file
    truncation      texts that are too long are cut, whatever the clients' settings say
    strict          the first row that cannot be answered ends the job
    overwrite       an output that is there is replaced, when the new one is whole
    restart         parts of an earlier run are thrown away
    patience        seconds for which the job waits while no cell serves
    ray             the address of a Ray cluster of the client's own domain; None: Ray is started here
    """

    source: Path
    output: Path
    cells: Path
    task: Task
    columns: tuple[str, ...]
    id: str | None = None
    keep: tuple[str, ...] = ()
    chunk: int = CHUNK
    truncation: bool = False
    strict: bool = False
    overwrite: bool = False
    restart: bool = False
    patience: float = PATIENCE
    ray: str | None = None

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise SettingsError(f"a chunk must have at least one row, got {self.chunk}")
        if not self.patience > 0:
            raise SettingsError(f"patience must be a positive number of seconds, got {self.patience:g}")
        if len(self.columns) != len(self.task.inputs):
            raise SettingsError(f"{self.task.name} reads one column for each of {', '.join(self.task.inputs)}; got "
                                f"{len(self.columns)}")

    @property
    def carried(self) -> tuple[str, ...]:
        """The source's columns that go into the output as they are."""
        return tuple(dict.fromkeys([*([] if self.id is None else [self.id]), *self.keep]))
