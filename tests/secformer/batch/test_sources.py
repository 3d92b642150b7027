"""Files as rows: order, types, chunks, and lines that cannot be read."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_lab import write_rows

from secformer.batch import sources
from secformer.batch.sources import PROBLEM, Piece, ending, open_source
from secformer.mpc.errors import InputError


def all_rows(path: Path, size: int = 4, carried: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    return [row for piece in open_source(path, ("text",), carried).chunks(size) for row in piece.rows.to_pylist()]


@pytest.mark.parametrize("end", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 700])
def test_chunks_have_one_size_and_shares_add_up(tmp_path: Path, end: str, count: int) -> None:
    path = write_rows(tmp_path / f"in{end}", [{"n": i, "text": f"text {i}"} for i in range(count)])
    pieces = list(open_source(path, ("text",), ("n",)).chunks(4))
    assert [len(piece.rows) for piece in pieces] == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    found = [row for piece in pieces for row in piece.rows.to_pylist()]
    assert [row["text 0"] for row in found] == [f"text {i}" for i in range(count)]
    assert [int(row["carried 0"]) for row in found] == list(range(count))
    assert all(row[PROBLEM] is None for row in found)
    ends = [0.0, *(piece.end for piece in pieces)]
    assert ends == sorted(ends) and ends[-1] == 1.0
    if count == 700:
        assert max(b - a for a, b in pairwise(ends)) < 0.1, "no chunk counts for another"


def test_a_column_may_be_asked_about_and_kept(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "in.parquet", [{"text": "a"}])
    assert all_rows(path, carried=("text",)) == [{"text 0": "a", "carried 0": "a", PROBLEM: None}]


# ---- Parquet ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(),
                                  pa.dictionary(pa.int32(), pa.string())])
def test_every_kind_of_text(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array(["a", None, "\u00e9"], pa.string())
    column = column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind)
    pq.write_table(pa.table({"text": column}), tmp_path / "in.parquet")
    assert [row["text 0"] for row in all_rows(tmp_path / "in.parquet")] == ["a", None, "\u00e9"]


def test_parquet_keeps_types(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "many": [[1, 2]], "more": [{"x": 1}]}), tmp_path / "in.parquet")
    source = open_source(tmp_path / "in.parquet", ("text",), ("more", "many"))
    assert source.schema.names == ["more", "many"] and source.schema.field("many").type == pa.list_(pa.int64())
    (piece,) = source.chunks(5)
    assert piece.rows.column("carried 0").to_pylist() == [{"x": 1}]


def test_columns_without_texts_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="holds int64, not texts"):
        open_source(tmp_path / "in.parquet", ("text",), ())


def test_bytes_that_are_no_text_are_a_problem_of_their_row(tmp_path: Path) -> None:
    values = pa.array([b"a", b"\xff\xfe", b"b"], pa.binary())
    wrong = pa.Array.from_buffers(pa.string(), 3, values.buffers())
    pq.write_table(pa.table({"text": wrong}), tmp_path / "in.parquet")
    found = all_rows(tmp_path / "in.parquet")
    assert [row["text 0"] for row in found] == ["a", None, "b"] and "not UTF-8" in found[1][PROBLEM]


@pytest.mark.parametrize("end", [".parquet", ".csv"])
def test_files_of_another_kind_are_refused(tmp_path: Path, end: str) -> None:
    (tmp_path / f"in{end}").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot read .*must be a whole"):
        open_source(tmp_path / f"in{end}", ("text",), ())


def test_a_parquet_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "in.parquet", [{"text": f"text {i}"} for i in range(50)])
    content = path.read_bytes()
    path.write_bytes(content[:40] + b"\0" * 200 + content[240:])
    with pytest.raises(InputError, match="cannot read"):
        all_rows(path)


def test_other_endings_are_refused() -> None:
    assert ending(Path("A.PARQUET")) == ".parquet"
    for name in ("in.txt", "in", "in.csv.gz"):
        with pytest.raises(InputError, match=r"must be \.parquet, \.csv, \.jsonl"):
            ending(Path(name))


# ---- CSV -------------------------------------------------------------------------------------------------------------


def test_csv_texts_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes('n,text\r\n007,"a ""b"",\nc"\r\n,\r\n\r\nNULL,nan\r\n"x",\u00e9\r\n'.encode())
    found = all_rows(tmp_path / "in.csv", carried=("n",))
    assert [(row["carried 0"], row["text 0"]) for row in found] == [
        ("007", 'a "b",\nc'), ("", ""), ("NULL", "nan"), ("x", "\u00e9")]


@pytest.mark.parametrize("block", [24, 64, 1 << 20])
def test_csv_rows_of_wrong_width_keep_their_places(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_READ", sources.pa_csv.ReadOptions(use_threads=False, block_size=block))
    lines = ["n,text", *(f"{i},t{i}" for i in range(20))]
    for at in (1, 2, 9, 20):
        lines[at] = f"{at}"
    (tmp_path / "in.csv").write_text("\n".join([*lines, "1,2,3"]))
    found = all_rows(tmp_path / "in.csv", carried=("n",))
    assert len(found) == 21
    for i, row in enumerate(found):
        if i + 1 in (1, 2, 9, 20, 21):
            assert row["text 0"] is row["carried 0"] is None
            assert row[PROBLEM].startswith(f"row {i + 2} of the file has {1 if i < 20 else 3} columns, not 2")
        else:
            assert (row["text 0"], row["carried 0"], row[PROBLEM]) == (f"t{i}", str(i), None)


def test_csv_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"n,text\n1,\xff\n\xff,b\n3,c\n")
    found = all_rows(tmp_path / "in.csv", carried=("n",))
    assert "'text' is not UTF-8" in found[0][PROBLEM] and "'n' is not UTF-8" in found[1][PROBLEM]
    assert found[2] == {"text 0": "c", "carried 0": "3", PROBLEM: None}


def test_columns_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text,text\na,b\n")
    with pytest.raises(InputError, match="has 2 columns 'text'"):
        open_source(tmp_path / "in.csv", ("text",), ())


# ---- JSON lines ------------------------------------------------------------------------------------------------------


def test_json_values_are_carried_as_they_are(tmp_path: Path) -> None:
    values: list[Any] = ["a", 1, 1.5, None, True, [1, {"x": "\u00e9"}], "5"]
    path = write_rows(tmp_path / "in.jsonl", [{"text": "t", "v": value} for value in values])
    assert [json.loads(row["carried 0"]) for row in all_rows(path, carried=("v",))] == values


def test_json_lines_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LINE", 30)
    lines = [b'\xef\xbb\xbf{"text": "a"}', b"", b'{"text": NaN}', b"[1]", b'{"text": "\xff"}',
             b'{"text": "%s"}' % (b"b" * 90), b"  ", b'{"text": "c"}']
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    found = all_rows(tmp_path / "in.jsonl")
    assert [row["text 0"] for row in found] == ["a", None, None, None, None, "c"]
    for row, told in zip(found[1:-1], ["line 3 of the file is not JSON: NaN is not", "line 4 of the file is a list",
                                       "line 5 of the file is not JSON", "line 6 of the file has more than"],
                         strict=True):
        assert row[PROBLEM].startswith(told)


def test_pieces_show_no_text(tmp_path: Path) -> None:
    assert "secret" not in repr(Piece(pa.table({"text 0": ["secret"]}), 1.0))
