"""Rows of a file, a piece at a time: Parquet, CSV or JSON lines, by the file's ending.

Every piece has the columns that a job needs, and one more, `PROBLEM`: why a row cannot be used. Rows that cannot be
read keep their places. The memory that a piece takes does not depend on the file's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from secformer.batch.json_lines import JsonLines
from secformer.batch.rows import MARK, Piece, Source, table_of, unread
from secformer.mpc.errors import InputError

BLOCK = 8 << 20  # bytes of a CSV file that are parsed at once: the most that a row may have


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
                yield Piece(table_of(columns, carried, self.schema, problems), done / total)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error
        finally:
            self._file.close()


class Csv(Source):
    """All columns are texts. The first row names them.

    The parser takes bytes for Latin-1, in which every byte is a character, because it loses wrong rows that are not
    UTF-8. Values are decoded behind it.
    """

    def __init__(self, path: Path, texts: Sequence[str], carried: Sequence[str]):
        super().__init__(path, texts, carried)
        self.schema = pa.schema([pa.field(name, pa.string()) for name in self.carried])
        with _behind_mark(path) as file:
            parsing = _parsing(lambda row: "skip")
            try:
                names = pa_csv.open_csv(file, read_options=_READ, parse_options=parsing).schema.names
            except pa.ArrowException as error:
                raise self._unreadable(error) from error
        self._require([name.encode("latin-1").decode("utf-8", "replace") for name in names])

    def pieces(self) -> Iterator[Piece]:
        wrong: list[Any] = []  # rows with too few or too many columns, as the parser finds them

        def skip(row: Any) -> str:
            wrong.append(row)
            return "skip"

        own = {name: name.encode().decode("latin-1") for name in self.needed}
        kinds = pa_csv.ConvertOptions(strings_can_be_null=False, include_columns=list(own.values()),
                                      column_types=dict.fromkeys(own.values(), pa.string()))
        size, number = max(1, self.path.stat().st_size), 2  # the first row behind the names
        with _behind_mark(self.path) as file:
            try:
                for batch in pa_csv.open_csv(file, read_options=_READ, parse_options=_parsing(skip),
                                             convert_options=kinds):
                    problems = _problems(len(batch))
                    columns = {name: _texts(_bytes(batch.column(its)), name, problems) for name, its in own.items()}
                    table = table_of({name: columns[name] for name in self.texts},
                                   {name: columns[name] for name in self.carried}, self.schema, problems)
                    table, number = self._with_wrong(table, number, wrong)
                    yield Piece(table, min(1.0, file.tell() / size))
            except pa.ArrowException as error:
                raise self._unreadable(error) from error
        if wrong:
            yield Piece(self._with_wrong(table_of({n: pa.array([], pa.string()) for n in self.texts},
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
            parts += [table.slice(done, ahead), unread(table.schema, [told])]
            done, number = done + ahead, row.number + 1
        return pa.concat_tables([*parts, table.slice(done)]), number + len(table) - done


SOURCES: dict[str, type[Source]] = {".parquet": Parquet, ".csv": Csv, ".jsonl": JsonLines}
_READ = pa_csv.ReadOptions(use_threads=False, block_size=BLOCK, encoding="latin-1")


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


def _behind_mark(path: Path) -> BinaryIO:
    """A file, behind the mark that some programs put before UTF-8."""
    file = path.open("rb")
    file.seek(len(MARK) * (file.read(len(MARK)) == MARK))
    return file


def _bytes(column: pa.Array) -> pa.Array:
    """The bytes of values that were taken for Latin-1."""
    if pc.all(pc.string_is_ascii(column)).as_py() in (True, None):
        return column
    return pa.array([value.encode("latin-1") for value in column.to_pylist()], pa.binary())


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
