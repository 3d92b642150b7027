"""Rows of JSON lines. Lines that cannot be read keep their places."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from secformer.batch.rows import MARK, RAW_JSON, Piece, Source, table_of

LINE = 64 << 20        # bytes: longer lines of JSON are not read
DEEP = "nests too deeply"
NUMBERS = "not a number of JSON"


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
        return table_of({name: pa.array(each, pa.string()) for name, each in zip(self.texts, columns, strict=False)},
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
        for name in self.carried:
            try:
                values.append(json.dumps(facts[name]) if name in facts else None)
            except RecursionError:
                values.append(None)
                problem = f"line {number} of the file {DEEP}"
        for i, value in enumerate(values):
            if value is not None and _surrogate(value):
                values[i], problem = None, f"line {number} of the file has half a surrogate pair, which is no character"
        return values, problem


def _lines(file: Any) -> Iterator[tuple[int, bytes | None]]:
    """Lines that hold something, with their numbers, from 1; None for one that is too long."""
    number = 0
    while line := file.readline(LINE + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(MARK)
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
    except RecursionError:
        return DEEP
    except ValueError as error:
        return f"is not JSON: {error}"
    return found if isinstance(found, dict) else f"is a {type(found).__name__}, not a JSON object"


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is {NUMBERS}")


def _surrogate(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text) if not text.isascii() else False
