"""What the benches of cells share: rows of SST-2 as a file, cells of the shipped model, and what a job must have
written."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from secformer import PlainModel, demo_model
from secformer.roles.trial import LocalRoles

TOLERANCE = 0.02    # of a probability, secure beside plaintext
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "glue" / "SST-2" / "train.tsv"


def sentences(count: int, file: Path) -> list[str]:
    """The first sentences of a GLUE file, again from the start where there are too few."""
    if not file.is_file():
        raise SystemExit(f"{file} is not there; name a file of SST-2 (sentence, tab, label) with --data")
    found = [line.split("\t")[0] for line in file.read_text("utf-8").splitlines()[1:]]
    return [found[i % len(found)] for i in range(count)]


def rows_file(folder: Path, texts: Sequence[str]) -> Path:
    """A Parquet file with a column of ids and one of texts."""
    path = folder / "in.parquet"
    with pq.ParquetWriter(path, pa.schema({"id": pa.string(), "text": pa.string()})) as writer:
        for start in range(0, len(texts), 1 << 14):
            part = texts[start : start + (1 << 14)]
            writer.write_table(pa.table({"id": [f"row-{start + i}" for i in range(len(part))], "text": list(part)}))
    return path


@contextmanager
def running(folder: Path, count: int, client: str = "") -> Iterator[list[LocalRoles]]:
    """So many cells of the shipped model, ready. `client` is added to the top of their clients' settings."""
    with ExitStack() as stack:
        cells = [stack.enter_context(LocalRoles(folder / name, demo_model())) for name in names(count)]
        for roles in cells:
            roles.wait_ready(300.0)
            file = roles.settings("client")
            file.write_text(client + file.read_text("utf-8"), "utf-8")
        yield cells


def names(count: int) -> list[str]:
    return [f"cell{i}" for i in range(count)]


def cells_file(folder: Path, settings: Sequence[Path]) -> Path:
    """A list of cells, by their clients' settings files."""
    path = folder / f"cells-{len(settings)}.toml"
    path.write_text("\n".join(f'[[cell]]\nname = "{name}"\nsettings = "{file}"\n'
                              for name, file in zip(names(len(settings)), settings, strict=True)), "utf-8")
    return path


def verified(output: Path, texts: Sequence[str], step: int = 1) -> float:
    """The largest error of a probability beside the model in plaintext, over every `step`-th row. Ends the bench unless
    every row is there once, in its order, without an error, with the plaintext's label (or probabilities that are as
    good as equal)."""
    table = pq.read_table(output)
    if table["id"].to_pylist() != [f"row-{i}" for i in range(len(texts))]:
        raise SystemExit("the output does not have every row once: nothing is recorded")
    if table["error"].null_count != len(texts) or not all(table["trusted"].to_pylist()):
        raise SystemExit("rows have errors, or cannot be trusted: nothing is recorded")
    plain, worst = PlainModel.from_pretrained(demo_model()), 0.0
    labels, found = table["label"].to_pylist(), np.array(table["scores"].to_pylist())
    for start in range(0, len(texts), 256 * step):
        chosen = range(start, min(start + 256 * step, len(texts)), step)
        out = plain([texts[i] for i in chosen])
        errors = np.abs(found[list(chosen)] - out.probabilities).max(axis=1)
        worst = max(worst, float(errors.max()))
        for i, label, error in zip(chosen, out.labels, errors, strict=True):
            if error > TOLERANCE or (labels[i] != label and abs(found[i].max() - 0.5) > TOLERANCE):
                raise SystemExit(f"row {i} is off by {error:.3g} ({labels[i]}, not {label}): nothing is recorded")
    print(f"  {len(texts)} rows, each once; probabilities off by at most {worst:.2g}", file=sys.stderr)
    return worst
