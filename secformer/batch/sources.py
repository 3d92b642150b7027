"""Rows of a file, a piece at a time: Parquet, CSV or JSON lines, by the file's ending.

Every piece has the columns that a job needs, and one more, `PROBLEM`: why a row cannot be used. Rows that cannot be
read keep their places. The memory that a piece takes does not depend on the file's size.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from secformer.mpc.errors import InputError

PROBLEM = "\0problem"  # the column that no file has
RAW_JSON = {b"secformer": b"json"}  # marks a column whose texts are JSON
BLOCK = 8 << 20        # bytes of a CSV file that are parsed at once: the most that a row may have
LINE = 64 << 20        # bytes: longer lines of JSON are not read
NUMBERS = "not a number of JSON"


@dataclass(frozen=True)
class Piece:
    """Some rows, in order. `end`: which part of the file is read when they are, from 0 to 1."""

    rows: pa.Table = field(repr=False)
    end: float


class Source(ABC):
    """An open input. `texts` are the columns that are asked about, `carried` those that go into the output as they
    are."""

    def __init__(self, path: Path, texts: Sequence[str], carried: Sequence[str]):
        """Raises InputError for a file that lacks a column, or that is of another kind than its name says."""
        self.path, self.texts, self.carried = path, tuple(texts), tuple(carried)
        self.needed = tuple(dict.fromkeys([*texts, *carried]))
        self.schema = pa.schema([])  # of the carried columns

    @abstractmethod
    def pieces(self) -> Iterator[Piece]:
        """All rows. Raises InputError where the file cannot be read on."""

    def chunks(self, size: int) -> Iterator[Piece]:
        """The same rows, `size` at a time; fewer at the end."""
        held, count, end = list[pa.Table](), 0, 0.0
        for piece in self.pieces():
            held.append(piece.rows)
            count += len(piece.rows)
            if count >= size:
                table, done, before = pa.concat_tables(held), 0, end
                while count - done >= size:
                    done += size
                    end = before + (piece.end - before) * done / count
                    yield Piece(table.slice(done - size, size), end)
                held, count = [table.slice(done)], count - done
        if count:
            yield Piece(pa.concat_tables(held), 1.0)

    def _require(self, names: Sequence[str]) -> None:
        """Raises InputError unless each needed column is there, once."""
        shown = ", ".join(map(repr, names)) or "none"
        for name in self.needed:
            if (times := list(names).count(name)) != 1:
                raise InputError(f"{self.path} has {times or 'no'} column{'s' * (times > 1)} {name!r}; its columns are "
                                 f"{shown}. Name the right one: --text, --query, --document, --id or --keep")

    def _unreadable(self, error: Exception) -> InputError:
        told = " ".join(str(error).split())[:300]
        return InputError(f"cannot read {self.path}: {told}; what is there must be a whole {self.path.suffix} file")


class Parquet(Source):
    """Columns keep their types."""

    def __init__(self, path: Path, texts: Sequence[str], carried: Sequence[str]):
        super().__init__(path, texts, carried)
        try:
            self._file = pq.ParquetFile(path, pre_buffer=False)
        except pa.ArrowException as error:
            raise self._unreadable(error) from error
        schema = self._file.schema_arrow
        self._require(schema.names)
        for name in self.texts:
            if not _is_text(kind := schema.field(name).type):
                raise InputError(f"the column {name!r} of {path} holds {kind}, not texts; name a column of strings")
        self.schema = pa.schema([pa.field(name, schema.field(name).type) for name in self.carried])

    def pieces(self) -> Iterator[Piece]:
        total, done = self._file.metadata.num_rows, 0
        try:
            for batch in self._file.iter_batches(columns=list(self.needed)):
                done += len(batch)
                columns, problems = {}, _problems(len(batch))
                for name in self.texts:
                    columns[name] = _texts(batch.column(name), name, problems)
                carried = {name: batch.column(name) for name in self.carried}
                yield Piece(_table(columns, carried, self.schema, problems), done / total)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error
        finally:
            self._file.close()


class Csv(Source):
    """All columns are texts. The first row names them."""

    def __init__(self, path: Path, texts: Sequence[str], carried: Sequence[str]):
        super().__init__(path, texts, carried)
        self.schema = pa.schema([pa.field(name, pa.string()) for name in self.carried])
        with path.open("rb") as file:
            parsing = _parsing(lambda row: "skip")
            try:
                names = pa_csv.open_csv(file, read_options=_READ, parse_options=parsing).schema.names
            except pa.ArrowException as error:
                raise self._unreadable(error) from error
        self._require(names)

    def pieces(self) -> Iterator[Piece]:
        wrong: list[Any] = []  # rows with too few or too many columns, as the parser finds them

        def skip(row: Any) -> str:
            wrong.append(row)
            return "skip"

        kinds = pa_csv.ConvertOptions(check_utf8=False, strings_can_be_null=False, include_columns=list(self.needed),
                                      column_types=dict.fromkeys(self.needed, pa.binary()))
        size, number = max(1, self.path.stat().st_size), 2  # the first row behind the names
        with self.path.open("rb") as file:
            try:
                for batch in pa_csv.open_csv(file, read_options=_READ, parse_options=_parsing(skip),
                                             convert_options=kinds):
                    problems = _problems(len(batch))
                    columns = {name: _texts(batch.column(name), name, problems) for name in self.needed}
                    table = _table({name: columns[name] for name in self.texts},
                                   {name: columns[name] for name in self.carried}, self.schema, problems)
                    table, number = self._with_wrong(table, number, wrong)
                    yield Piece(table, min(1.0, file.tell() / size))
            except pa.ArrowException as error:
                raise self._unreadable(error) from error
        if wrong:
            yield Piece(self._with_wrong(_table({n: pa.array([], pa.string()) for n in self.texts},
                                                {n: pa.array([], pa.string()) for n in self.carried},
                                                self.schema, []), number, wrong, last=True)[0], 1.0)

    def _with_wrong(self, table: pa.Table, number: int, wrong: list[Any], last: bool = False) -> tuple[pa.Table, int]:
        """The table with rows for the wrong ones that stand before its end, and the number of the next row."""
        parts, done = [], 0
        while wrong and (last or wrong[0].number - number <= len(table) - done):
            row = wrong.pop(0)
            ahead = 0 if last else row.number - number
            told = (f"row {row.number} of the file has {row.actual_columns} columns, not {row.expected_columns} (the "
                    f"names are row 1; empty lines do not count)")
            parts += [table.slice(done, ahead), _unread(table.schema, [told])]
            done, number = done + ahead, row.number + 1
        return pa.concat_tables([*parts, table.slice(done)]), number + len(table) - done


class JsonLines(Source):
    """One object per line. Carried values are kept as JSON. Empty lines are left out."""

    def __init__(self, path: Path, texts: Sequence[str], carried: Sequence[str]):
        super().__init__(path, texts, carried)
        self.schema = pa.schema([pa.field(name, pa.string(), metadata=RAW_JSON) for name in self.carried])
        with path.open("rb") as file:
            first = next((facts for _, line in _lines(file) if isinstance(facts := _object(line), dict)), None)
        if first is not None:
            self._require(list(first))

    def pieces(self) -> Iterator[Piece]:
        size, found = max(1, self.path.stat().st_size), list[tuple[list[str | None], str | None]]()
        with self.path.open("rb") as file:
            for number, line in _lines(file):
                found.append(self._row(number, line))
                if len(found) == 256:
                    yield Piece(self._made(found), min(1.0, file.tell() / size))
                    found = []
        if found:
            yield Piece(self._made(found), 1.0)

    def _made(self, found: Sequence[tuple[list[str | None], str | None]]) -> pa.Table:
        columns = list(zip(*(values for values, _ in found), strict=True))
        count = len(self.texts)
        return _table({name: pa.array(each, pa.string()) for name, each in zip(self.texts, columns, strict=False)},
                      {name: pa.array(each, pa.string()) for name, each in
                       zip(self.carried, columns[count:], strict=True)}, self.schema, [told for _, told in found])

    def _row(self, number: int, line: bytes | None) -> tuple[list[str | None], str | None]:
        """A line's texts and carried values, and what is wrong with it."""
        facts = _object(line)
        if isinstance(facts, str):
            return [None] * (len(self.texts) + len(self.carried)), f"line {number} of the file {facts}"
        problem = None
        values: list[str | None] = []
        for name in self.texts:
            value = facts.get(name)
            values.append(value if isinstance(value, str) else None)
            if problem is None and not isinstance(value, str):
                problem = (f"{name!r} is null, not a text" if name in facts and value is None else
                           f"line {number} of the file has no {name!r}" if name not in facts else
                           f"{name!r} is a {type(value).__name__}, not a text")
        values += [json.dumps(facts[name]) if name in facts else None for name in self.carried]
        for i, value in enumerate(values):
            if value is not None and _surrogate(value):
                values[i], problem = None, f"line {number} of the file has half a surrogate pair, which is no character"
        return values, problem


SOURCES: dict[str, type[Source]] = {".parquet": Parquet, ".csv": Csv, ".jsonl": JsonLines}
_READ = pa_csv.ReadOptions(use_threads=False, block_size=BLOCK)


def open_source(path: Path, texts: Sequence[str], carried: Sequence[str]) -> Source:
    """An input. Raises InputError."""
    try:
        return SOURCES[ending(path)](path, texts, carried)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; give a file that is there") from error


def ending(path: Path) -> str:
    """The ending of a file that can be read and written. Raises InputError for another one."""
    if (found := path.suffix.lower()) not in SOURCES:
        raise InputError(f"{path} ends in {found or 'nothing'!r}; the ending says what a file holds, and must be "
                         f"{', '.join(SOURCES)}")
    return found


def is_json(field: pa.Field) -> bool:
    """Whether a column's texts are JSON."""
    return field.metadata is not None and RAW_JSON.items() <= field.metadata.items()


def _parsing(handler: Any) -> pa_csv.ParseOptions:
    return pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=handler)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
                or pa.types.is_null(kind))


def _problems(count: int) -> list[str | None]:
    return [None] * count


def _texts(column: pa.Array, name: str, problems: list[str | None]) -> pa.Array:
    """A column as strings. Values that are no UTF-8 become null, and a problem of their row."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        found = column.cast(pa.string())
        found.validate(full=True)
        return found
    except pa.ArrowInvalid:
        pass
    values: list[str | None] = []
    for i, value in enumerate(column.cast(pa.large_binary()).to_pylist()):
        try:
            values.append(None if value is None else value.decode("utf-8"))
        except UnicodeDecodeError as error:
            values.append(None)
            problems[i] = f"{name!r} is not UTF-8: byte {error.start} cannot be read"
    return pa.array(values, pa.string())


def _table(texts: dict[str, pa.Array], carried: dict[str, pa.Array], schema: pa.Schema,
           problems: Sequence[str | None]) -> pa.Table:
    """Texts, as "text 0" and on, then carried columns, as "carried 0" and on, then problems: one column may be both."""
    columns = [*texts.values(), *(carried[f.name] for f in schema), pa.array(problems, pa.string())]
    fields = [*(pa.field(f"text {i}", pa.string()) for i in range(len(texts))),
              *(pa.field(f"carried {i}", f.type) for i, f in enumerate(schema)), pa.field(PROBLEM, pa.string())]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _unread(schema: pa.Schema, problems: Sequence[str]) -> pa.Table:
    """Rows of which nothing is known but what is wrong with them."""
    columns = [pa.nulls(len(problems), f.type) for f in schema]
    columns[-1] = pa.array(problems, pa.string())
    return pa.Table.from_arrays(columns, schema=schema)


def _lines(file: Any) -> Iterator[tuple[int, bytes | None]]:
    """Lines that hold something, with their numbers, from 1; None for one that is too long."""
    number = 0
    while line := file.readline(LINE + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        whole = len(line) <= LINE
        while not whole and not line.endswith(b"\n") and line:
            line = file.readline(LINE + 1)
        if not whole or line.strip():
            yield number, line if whole else None


def _object(line: bytes | None) -> dict[str, Any] | str:
    """A line's object, or what is wrong with it."""
    if line is None:
        return f"has more than {LINE >> 20} MiB"
    try:
        found = json.loads(line.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    return found if isinstance(found, dict) else f"is a {type(found).__name__}, not a JSON object"


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is {NUMBERS}")


def _surrogate(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text) if not text.isascii() else False
