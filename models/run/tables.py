"""The embedding tables in a client's folder, where the model's owner gave them to clients (`embedding="client"`).

The tables are secret from the parties. So nothing that a party gets depends on them: not even their digest, which a
party could use to test a guess. Their digest stands in their own file, beside the name of the model that they belong
to.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from secformer.models.data.batch import Batch, blind_batch
from secformer.models.data.checkpoint import Checkpoint, PathLike
from secformer.models.families.architecture import Architecture
from secformer.models.families.folder import ModelFolder
from secformer.models.run.public import PublicModel
from secformer.mpc.errors import ModelError

FILE = "tables.safetensors"
FORMAT = "secformer tables 1"
AGAIN = "use the clients' folder that `secformer provision --embedding client` wrote"


def needed(architecture: Architecture) -> dict[str, tuple[int, int]]:
    """The tables that embedding sums are looked up in: their names and shapes (rows, C)."""
    found: dict[str, tuple[int, int]] = {}

    def rows(name: str, shape: tuple[int, int], places: np.ndarray) -> np.ndarray:
        found[name] = shape
        return np.zeros((len(places), shape[1]))

    architecture.embedding_sums(rows, blind_batch(np.array([1]), np.ones((1, 1), dtype=bool)))
    return found


def write_tables(folder: Path, source: ModelFolder, public: PublicModel) -> None:
    """Writes the tables of a model into a client's folder, readable for its owner only. Raises OSError."""
    from safetensors.numpy import save_file

    tables = {name: source.checkpoint.stored(name, shape) for name, shape in needed(public.architecture).items()}
    path = folder / FILE
    part = path.with_suffix(".part")
    part.touch(mode=0o600)
    save_file(tables, part, metadata={"format": FORMAT, "model": public.digest, "sha256": _digest(tables)})
    os.chmod(part, 0o600)
    part.replace(path)


class Tables:
    """The tables of a provisioned model, in its client's folder."""

    def __init__(self, folder: PathLike, public: PublicModel):
        """Reads the file once, to verify it. Raises ModelError where it is missing or unreadable, belongs to another
        provisioning, or does not hold the tables that it was written with."""
        path = Path(folder) / FILE
        if not path.is_file():
            raise ModelError(f"{path} is missing: in this model, clients hold the embedding tables; {AGAIN}")
        self._tables = Checkpoint(Path(folder), file=FILE)
        self._architecture, wanted = public.architecture, needed(public.architecture)
        facts = _metadata(path)
        if facts.get("format") != FORMAT:
            raise ModelError(f"{path} has the format {facts.get('format')!r}, but this version reads {FORMAT!r}; "
                             f"{AGAIN}")
        if facts.get("model") != public.digest:
            raise ModelError(f"{path} holds the embedding tables of model {facts.get('model')}, but this folder "
                             f"describes model {public.digest}; {AGAIN}, and mix no files of two provisionings")
        shapes = {name: self._tables.shape(name) for name in wanted if name in self._tables}
        if shapes != wanted:
            raise ModelError(f"{path} holds the tables {shapes}, but the model needs {wanted}; {AGAIN}")
        if _digest({name: self._tables.stored(name, shape) for name, shape in wanted.items()}) != facts.get("sha256"):
            raise ModelError(f"{path} was altered after it was written: the digest of its tables is another; {AGAIN}")

    def sums(self, batch: Batch) -> np.ndarray:
        """The embedding sums (N, C) of a batch, in float64."""
        return np.asarray(self._architecture.embedding_sums(self._tables.rows, batch))


def contents_of(folder: Path) -> str:
    """The digest that a client's folder names for its tables, whatever provisioning they belong to. `Tables` checks it.

    Raises ModelError for a file that cannot be read.
    """
    from safetensors import SafetensorError

    try:
        return _metadata(folder / FILE).get("sha256", "")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / FILE} cannot be read ({error}); {AGAIN}") from error


def _digest(tables: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, dtypes, shapes and values."""
    h = hashlib.sha256()
    for name, table in sorted(tables.items()):
        h.update(f"{name}:{table.dtype}:{table.shape};".encode())
        h.update(np.ascontiguousarray(table).reshape(-1).view(np.uint8).data)
    return h.hexdigest()


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(str(path), framework="np") as handle:
        facts: Any = handle.metadata()
    return dict(facts or {})
