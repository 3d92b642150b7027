"""Answers as a file: Parquet, CSV or JSON lines, by the file's ending. Written part by part, and synced at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from secformer.batch.sources import is_json

GROUP = 1 << 16  # rows of a row group of Parquet, about
Write = Callable[[BinaryIO, pa.Schema, Iterable[pa.Table]], None]


def write(path: Path, kind: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Writes a file that lasts through a power cut. `kind` is the ending that says how. Raises OSError."""
    with path.open("wb") as file:
        SINKS[kind](file, schema, tables)
        file.flush()
        os.fsync(file.fileno())


def _parquet(file: BinaryIO, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    with pq.ParquetWriter(file, _unmarked(schema)) as writer:
        for table in _joined(tables):
            writer.write_table(pa.Table.from_arrays(_told(table), schema=_unmarked(schema)))


def _joined(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in larger tables."""
    held, count = list[pa.Table](), 0
    for table in tables:
        held.append(table)
        count += len(table)
        if count >= GROUP:
            yield pa.concat_tables(held)
            held, count = [], 0
    if held:
        yield pa.concat_tables(held)


def _csv(file: BinaryIO, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Lists and records, which CSV cannot hold, become JSON."""
    flat = pa.schema([pa.field(f.name, pa.string() if pa.types.is_nested(f.type) else f.type) for f in schema])
    with pa_csv.CSVWriter(file, flat) as writer:
        for table in tables:
            columns = [pa.array([None if each is None else _dumped(each) for each in column.to_pylist()], f.type)
                       if pa.types.is_nested(column.type) else column
                       for column, f in zip(_told(table), flat, strict=True)]
            writer.write_table(pa.Table.from_arrays(columns, schema=flat))


def _json_lines(file: BinaryIO, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Columns that hold JSON are written as they came."""
    raw = [is_json(f) for f in schema]
    for table in tables:
        columns = [[_loaded(each) for each in column.to_pylist()] if json_ else column.to_pylist()
                   for column, json_ in zip(table.columns, raw, strict=True)]
        for row in zip(*columns, strict=True):
            file.write(_dumped(dict(zip(schema.names, row, strict=True))).encode() + b"\n")


def _told(table: pa.Table) -> list[pa.ChunkedArray | pa.Array]:
    """The columns; of those that hold JSON, texts as they are, and other values as JSON."""
    return [pa.array([value if isinstance(value := _loaded(text), str) or value is None else text
                      for text in column.to_pylist()], pa.string()) if is_json(f) else column
            for column, f in zip(table.columns, table.schema, strict=True)]


def _dumped(value: Any) -> str:
    """JSON. What JSON does not know, such as dates, is written as text."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)


def _loaded(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _unmarked(schema: pa.Schema) -> pa.Schema:
    return pa.schema([f.remove_metadata() for f in schema])


SINKS: dict[str, Write] = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines}
