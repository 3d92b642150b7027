"""What every input of a job is: columns of rows, a piece at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from secformer.mpc.errors import InputError

PROBLEM = "\0problem"  # the column that no file has
RAW_JSON = {b"secformer": b"json"}  # marks a column whose texts are JSON
MARK = b"\xef\xbb\xbf"   # what some programs put before UTF-8


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


def is_json(field: pa.Field) -> bool:
    """Whether a column's texts are JSON."""
    return field.metadata is not None and RAW_JSON.items() <= field.metadata.items()


def table_of(texts: dict[str, pa.Array], carried: dict[str, pa.Array], schema: pa.Schema,
           problems: Sequence[str | None]) -> pa.Table:
    """Texts, as "text 0" and on, then carried columns, as "carried 0" and on, then problems: one column may be both."""
    columns = [*texts.values(), *(carried[f.name] for f in schema), pa.array(problems, pa.string())]
    fields = [*(pa.field(f"text {i}", pa.string()) for i in range(len(texts))),
              *(pa.field(f"carried {i}", f.type) for i, f in enumerate(schema)), pa.field(PROBLEM, pa.string())]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def unread(schema: pa.Schema, problems: Sequence[str]) -> pa.Table:
    """Rows of which nothing is known but what is wrong with them."""
    columns = [pa.nulls(len(problems), f.type) for f in schema]
    columns[-1] = pa.array(problems, pa.string())
    return pa.Table.from_arrays(columns, schema=schema)
