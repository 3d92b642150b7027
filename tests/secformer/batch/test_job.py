"""Whole jobs, whose workers are threads and whose cells answer at once: every file, every way to stop and to fail."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_lab import Instant, cells, client_folder, job, ran, read_rows, texts, write_rows
from cells_lab import cells_file, client_file
from checkpoints import write_checkpoint

from secformer.batch import driver, stations
from secformer.batch.driver import Driver, Progress
from secformer.batch.folder import JobFolder
from secformer.batch.stopped import Stopped
from secformer.batch.tasks import Classify, Embed, Entities, Rerank
from secformer.cells import drained
from secformer.models.data.tokenizer import Reading
from secformer.mpc.errors import InputError, ModelError, PeerLost, SettingsError, StoreError
from secformer.mpc.fixed import FixedPoint
from secformer.protocols.recipes import SECFORMER
from secformer.roles.asking import Busy

ENDINGS = (".parquet", ".csv", ".jsonl")
MANY = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("batch")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return write_checkpoint(folder / "classifier", "BertForSequenceClassification")


@pytest.fixture(scope="module")
def two(folder: Path, model: Path) -> Path:
    """Two cells."""
    return cells(folder / "two", model)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody rests for long."""
    monkeypatch.setattr(stations, "REST", (0.01, 0.02))
    monkeypatch.setattr(stations, "BUSY", 0.01)
    monkeypatch.setattr(driver, "TICK", 0.01)
    monkeypatch.setattr(driver, "TELL", 0.0)
    monkeypatch.setattr(drained, "LOOK", 0.0)


def rows(count: int) -> list[dict[str, Any]]:
    return [{"key": f"k{i}", "text": text, "n": i} for i, text in enumerate(texts(count))]


def right(found: list[dict[str, Any]], model: Path, given: list[dict[str, Any]]) -> None:
    """Every row once, in order, with its own answer."""
    assert [row["key"] for row in found] == [row["key"] for row in given]
    twin = Instant(model)
    for row, came in zip(found, given, strict=True):
        wanted = np.asarray(twin.answer([came["text"]]).probabilities)[0]
        scores = json.loads(row["scores"]) if isinstance(row["scores"], str) else row["scores"]
        assert np.allclose(scores, wanted, atol=1e-12) and not row["error"]
        assert row["label"] == f"label {wanted.argmax()}" and np.isclose(float(row["score"]), wanted.max())


class Dying(BaseException):
    """The driver's process ends."""


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ENDINGS)
@pytest.mark.parametrize("output", ENDINGS)
def test_every_format(tmp_path: Path, model: Path, two: Path, source: str, output: str) -> None:
    given = rows(MANY)
    out = tmp_path / f"out{output}"
    found = ran(job(write_rows(tmp_path / f"in{source}", given), out, two, id="key", keep=("n",)), Instant(model))
    assert (found.rows, found.failed, found.marked, found.answered) == (MANY, 0, 0, MANY)
    assert found.bytes == 100 * MANY and sum(cell.rows for cell in found.cells) == MANY
    answered = read_rows(out)
    right(answered, model, given)
    typed = {(".parquet", ".parquet"), (".parquet", ".jsonl"), (".jsonl", ".jsonl")}
    number = int if (source, output) in typed else str
    assert [row["n"] for row in answered] == [number(i) for i in range(MANY)]
    assert list(answered[0]) == ["key", "n", "label", "score", "scores", "trusted", "error"]
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([f"in{source}", f"out{output}"])


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11])
def test_odd_sizes(tmp_path: Path, model: Path, two: Path, ending: str, count: int) -> None:
    """A chunk has 10 rows. Without ids, rows have numbers."""
    source = tmp_path / f"in{ending}"
    if count:
        write_rows(source, [{"text": text} for text in texts(count)])
    elif ending == ".parquet":
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), source)
    else:
        source.write_text("text\n" if ending == ".csv" else "")
    assert ran(job(source, tmp_path / f"out{ending}", two), Instant(model)).rows == count
    found = read_rows(tmp_path / f"out{ending}")
    assert [int(row["row"]) for row in found] == list(range(count))


def test_bad_rows_have_errors(tmp_path: Path, model: Path, two: Path) -> None:
    good = json.dumps({"text": "a cat"})
    lines = [good, "{", json.dumps({"text": None}), json.dumps({"text": 5}), json.dumps({"other": 1}),
             json.dumps({"text": "cat " * 60}), '"\ud83d"', '{"text": "\\ud800"}', "", good]
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(lines), "utf-8", "surrogatepass")
    found = ran(job(source, tmp_path / "out.jsonl", two), Instant(model))
    assert (found.rows, found.failed, found.answered) == (9, 7, 2)
    answered = read_rows(tmp_path / "out.jsonl")
    told = [row["error"] for row in answered]
    assert told[0] is None and told[-1] is None and answered[0]["label"] and answered[-1]["label"]
    for problem, part in zip(told[1:-1], ["line 2 of the file is not JSON", "'text' is null", "is a int, not a text",
                                          "line 5 of the file has no 'text'", "the text has 62 tokens",
                                          "line 7 of the file is not JSON", "half a surrogate pair"], strict=True):
        assert part in problem
    assert all(row["label"] is row["score"] is row["trusted"] is None for row in answered[1:-1])


@pytest.mark.parametrize("bad", ["null", "long"])
def test_strict_stops_at_a_bad_row(tmp_path: Path, model: Path, two: Path, bad: str) -> None:
    given: list[dict[str, Any]] = [{"text": text} for text in texts(25)]
    given[13]["text"] = None if bad == "null" else "cat " * 60
    work = job(write_rows(tmp_path / "in.jsonl", given), tmp_path / "out.jsonl", two, strict=True)
    with pytest.raises(Stopped, match=r"row 13 \(counted from 0\)"):
        ran(work, Instant(model))
    assert not (tmp_path / "out.jsonl").exists()


def test_long_texts_are_cut_if_asked(tmp_path: Path, model: Path, two: Path) -> None:
    source = write_rows(tmp_path / "in.csv", [{"text": "cat " * 60}])
    assert ran(job(source, tmp_path / "out.csv", two, truncation=True), Instant(model)).failed == 0


@pytest.mark.parametrize(("options", "told"), [
    ({"columns": ("txt",)}, "no column 'txt'; its columns are 'key', 'text', 'n'"),
    ({"id": "name"}, "no column 'name'"), ({"keep": ("text", "m")}, "no column 'm'"),
])
@pytest.mark.parametrize("ending", ENDINGS)
def test_missing_columns_are_refused(tmp_path: Path, model: Path, two: Path, ending: str, options: dict[str, Any],
                                     told: str) -> None:
    source = write_rows(tmp_path / f"in{ending}", rows(3))
    with pytest.raises(InputError, match=told):
        ran(job(source, tmp_path / "out.csv", two, **options), Instant(model))
    assert not (tmp_path / "out.csv.parts").exists()


def test_columns_of_one_name_are_refused(tmp_path: Path, model: Path, two: Path) -> None:
    source = write_rows(tmp_path / "in.csv", [{"text": "a", "score": 1}])
    with pytest.raises(InputError, match="two columns 'score'"):
        ran(job(source, tmp_path / "out.csv", two, keep=("score",)), Instant(model))


def test_places_that_cannot_be_written_are_refused(tmp_path: Path, model: Path, two: Path) -> None:
    source = write_rows(tmp_path / "in.csv", rows(3))
    for output, told in ((source, "the input itself"), (tmp_path / "no" / "o.csv", "a folder that exists"),
                         (tmp_path / "out.txt", "ends in '.txt'"), (tmp_path / "out", "ends in 'nothing'")):
        with pytest.raises(InputError, match=told):
            ran(job(source, output, two, overwrite=True), Instant(model))
    with pytest.raises(InputError, match="is not a file"):
        ran(job(tmp_path / "none.csv", tmp_path / "out.csv", two), Instant(model))


def test_an_output_that_exists_stays_until_the_new_one_is_whole(tmp_path: Path, model: Path, two: Path) -> None:
    source, out = write_rows(tmp_path / "in.csv", rows(25)), tmp_path / "out.csv"
    out.write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        ran(job(source, out, two), Instant(model))
    seen = []
    ran(job(source, out, two, overwrite=True), Instant(model, lambda port, read: seen.append(out.read_text())))
    assert set(seen) == {"mine"} and len(read_rows(out)) == 25


# ---- stops -----------------------------------------------------------------------------------------------------------


def test_a_job_goes_on_wherever_its_driver_died(tmp_path: Path, model: Path, two: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver dies before every step that changes the disk, in turn; the next run gives the whole output."""
    given = rows(25)
    source, out = write_rows(tmp_path / "in.csv", given), tmp_path / "out.csv"
    steps: list[str] = []
    left = [0]

    def dying(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                steps.append(name)
                raise Dying
            return real(*args, **options)
        return step

    for last in itertools.count():
        with monkeypatch.context() as patch:
            left[0] = last
            patch.setattr(os, "fsync", dying("fsync", os.fsync))
            for name in ("replace", "unlink", "rmdir"):
                patch.setattr(Path, name, dying(name, getattr(Path, name)))
            try:
                ran(job(source, out, two, id="key"), Instant(model))
                break
            except Dying:
                pass
        again = Instant(model)
        try:
            assert ran(job(source, out, two, id="key"), again).rows == 25
        except InputError:  # the output was there, and all that was left was an empty folder
            assert steps[-1] in ("unlink", "rmdir") and not again.calls
            assert not list((tmp_path / "out.csv.parts").glob("*.arrow"))
            shutil.rmtree(tmp_path / "out.csv.parts")
        right(read_rows(out), model, given)
        out.unlink()
    assert {"fsync", "replace", "unlink", "rmdir"} <= set(steps) and len(steps) > 20


def test_only_what_is_missing_is_asked_again(tmp_path: Path, model: Path, two: Path) -> None:
    given = rows(MANY)
    source, out = write_rows(tmp_path / "in.csv", given), tmp_path / "out.csv"
    first = Instant(model)

    def interrupted(progress: Progress) -> None:
        if progress.rows >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ran(job(source, out, two, id="key"), first, tell=interrupted)
    kept = len(list((tmp_path / "out.csv.parts").glob("*.arrow")))
    second = Instant(model)
    found = ran(job(source, out, two, id="key"), second)
    assert kept >= 2 and not out.with_name("out.csv.parts").exists()
    assert found.answered == MANY - 10 * kept == sum(second.rows.values()) and found.rows == MANY
    assert set(second.rows.values()) == {1}
    right(read_rows(out), model, given)


@pytest.mark.parametrize(("change", "told"), [
    ({"id": None}, "id was 'key' and is None"), ({"chunk": 11}, "chunk was 10 and is 11"), ({"keep": ("n",)}, "keep"),
    ({"columns": ("key",)}, "columns"), ({"truncation": True}, "model"), ("touch", "input changed"),
    ("append", "input size"),
])
def test_parts_of_another_job_are_refused(tmp_path: Path, model: Path, two: Path, change: Any, told: str) -> None:
    source, out = write_rows(tmp_path / "in.csv", rows(25)), tmp_path / "out.csv"

    def stop(progress: Progress) -> None:
        if progress.rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ran(job(source, out, two, id="key"), Instant(model), tell=stop)
    changed = change if isinstance(change, dict) else {}
    if change == "touch":
        os.utime(source, ns=(1, 1))
    elif change == "append":
        source.write_text(source.read_text() + "k25,a cat,25\n")
    with pytest.raises(InputError, match=f"parts of another job: .*{told}.*--restart"):
        ran(job(source, out, two, **{"id": "key", **changed}), Instant(model))
    again = Instant(model)
    found = ran(job(source, out, two, **{"id": "key", **changed}, restart=True), again)
    assert found.answered == found.rows == 25 + (change == "append") == sum(again.rows.values())


def test_an_input_that_changes_meanwhile_ends_the_job(tmp_path: Path, model: Path, two: Path) -> None:
    source, out = write_rows(tmp_path / "in.csv", rows(25)), tmp_path / "out.csv"
    with pytest.raises(Stopped, match="has changed while the job ran"):
        ran(job(source, out, two), Instant(model, lambda port, read: os.utime(source, ns=(1, 1))))
    assert not out.exists()


def test_one_driver_at_a_time(tmp_path: Path, model: Path, two: Path) -> None:
    source, out = write_rows(tmp_path / "in.csv", rows(5)), tmp_path / "out.csv"
    with JobFolder(out), pytest.raises(StoreError, match="in use by process"):
        ran(job(source, out, two), Instant(model))


def test_a_full_disk_ends_the_job_readably(tmp_path: Path, model: Path, two: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    given = rows(25)
    source, out = write_rows(tmp_path / "in.csv", given), tmp_path / "out.csv"
    real, count = os.fsync, itertools.count()

    def full(handle: int) -> None:
        if next(count) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(Stopped, match=r"cannot write .*: No space left on device; make room.*run the same command"):
            ran(job(source, out, two, id="key"), Instant(model))
    ran(job(source, out, two, id="key"), Instant(model))
    right(read_rows(out), model, given)


def test_a_part_that_was_cut_off_is_told(tmp_path: Path, model: Path, two: Path) -> None:
    source, out = write_rows(tmp_path / "in.csv", rows(25)), tmp_path / "out.csv"

    def spoil(progress: Progress) -> None:
        for part in (tmp_path / "out.csv.parts").glob("0.arrow"):
            part.write_bytes(part.read_bytes()[:50])

    with pytest.raises(Stopped, match=r"0.arrow cannot be read.*remove it"):
        ran(job(source, out, two), Instant(model), tell=spoil)


# ---- cells -----------------------------------------------------------------------------------------------------------


def test_rows_are_written_once_whatever_fails(tmp_path: Path, model: Path, two: Path) -> None:
    given, numbers, lock = rows(MANY), np.random.default_rng(0), threading.Lock()
    source, out = write_rows(tmp_path / "in.csv", given), tmp_path / "out.csv"

    def failing(port: int, read: Reading) -> None:
        with lock:
            fails = numbers.random() < 0.25
        if fails:
            raise PeerLost("gone")

    found = ran(job(source, out, two, id="key"), Instant(model, failing))
    assert found.failed == 0 and all(cell.failures for cell in found.cells)
    right(read_rows(out), model, given)


def test_a_cell_that_fails_gets_a_probe_before_it_gets_rows(tmp_path: Path, model: Path, two: Path) -> None:
    given = rows(MANY)
    source, out = write_rows(tmp_path / "in.csv", given), tmp_path / "out.csv"
    asked: list[int] = []

    def failing(port: int, read: Reading) -> None:
        if port == 9000:
            asked.append(sum(map(len, read.rows)))
            if len(asked) < 8:
                raise PeerLost("gone")

    found = ran(job(source, out, two, id="key"), Instant(model, failing))
    probe = 3  # tokens: a word, and what stands around it
    handed = next((i for i, tokens in enumerate(asked) if tokens == probe), 8)
    assert handed <= 4 and set(asked[handed:7]) == {probe}, "what was on its way fails, then probes do"
    right(read_rows(out), model, given)
    assert found.cells[0].failures >= 1


def test_a_drained_cell_gets_nothing_more(tmp_path: Path, model: Path) -> None:
    given = rows(200)
    own = cells(tmp_path / "cells", model)
    source, out = write_rows(tmp_path / "in.csv", given), tmp_path / "out.csv"
    calls: list[int] = []

    def noted(port: int, read: Reading) -> None:
        calls.append(port)
        if len(calls) == 1:
            drained.drain(own, "a")

    ran(job(source, out, own, id="key"), Instant(model, noted))
    assert 9000 not in calls[20:] and 9002 in calls[20:]
    right(read_rows(out), model, given)


def test_a_job_waits_while_all_cells_are_drained(tmp_path: Path, model: Path) -> None:
    own = cells(tmp_path / "cells", model)
    source, out = write_rows(tmp_path / "in.csv", rows(25)), tmp_path / "out.csv"
    for name in "ab":
        drained.drain(own, name)
    told: list[str] = []

    def resume(progress: Progress) -> None:
        told.append(progress.waiting)
        if len(told) == 3:
            drained.resume(own, "b")

    found = ran(job(source, out, own), Instant(model), tell=resume)
    assert told[0] == told[1] == "a: drained; b: drained" and told[-1] == ""
    assert [cell.rows for cell in found.cells] == [0, 25]


def test_patience_ends(tmp_path: Path, model: Path, two: Path) -> None:
    source, out = write_rows(tmp_path / "in.csv", rows(25)), tmp_path / "out.csv"

    def gone(port: int, read: Reading) -> None:
        raise PeerLost("party0 does not answer")

    with pytest.raises(Stopped, match=r"no cell has served for 0\.2 s \(a: PeerLost: party0 .*run the same command"):
        ran(job(source, out, two, patience=0.2), Instant(model, gone))
    assert ran(job(source, out, two), Instant(model)).rows == 25


def test_limits_are_waited_for(tmp_path: Path, model: Path, two: Path) -> None:
    given, count = rows(MANY), itertools.count()
    source, out = write_rows(tmp_path / "in.csv", given), tmp_path / "out.csv"

    def busy(port: int, read: Reading) -> None:
        if next(count) % 3:
            raise Busy("later", 0.01 if port == 9000 else None)

    found = ran(job(source, out, two, id="key"), Instant(model, busy))
    assert found.failed == 0 and [cell.failures for cell in found.cells] == [0, 0]
    right(read_rows(out), model, given)


def test_a_row_that_the_model_does_not_take_fails_alone(tmp_path: Path, model: Path, two: Path) -> None:
    given = rows(MANY)
    bad = tuple(Instant(model).tokenizer.read(given[31]["text"]).rows[0].ids.tolist())

    def refuse(port: int, read: Reading) -> None:
        for i, row in enumerate(read.rows):
            if tuple(row.ids.tolist()) == bad:
                raise InputError(f"text {i} is not for us")

    source, out = write_rows(tmp_path / "in.csv", given), tmp_path / "out.csv"
    asked = Instant(model, refuse)
    assert ran(job(source, out, two, id="key"), asked).failed == 1
    found = read_rows(out)
    assert found.pop(31)["error"] == "the text is not for us"
    right(found, model, given[:31] + given[32:])
    assert set(asked.rows.values()) == {1}
    with pytest.raises(Stopped, match=r"row 31 .*the text is not for us"):
        ran(job(source, out, two, id="key", strict=True, overwrite=True), Instant(model, refuse))


def test_a_row_that_makes_cells_fail_does_not_end_the_job(tmp_path: Path, model: Path, two: Path) -> None:
    given = rows(MANY)
    bad = tuple(Instant(model).tokenizer.read(given[31]["text"]).rows[0].ids.tolist())

    def break_down(port: int, read: Reading) -> None:
        if any(tuple(row.ids.tolist()) == bad for row in read.rows):
            raise PeerLost("hung up")

    source, out = write_rows(tmp_path / "in.csv", given), tmp_path / "out.csv"
    assert ran(job(source, out, two, id="key"), Instant(model, break_down)).failed == 1
    found = read_rows(out)
    assert f"cells failed {driver.HOPELESS} times" in found.pop(31)["error"]
    right(found, model, given[:31] + given[32:])


def test_a_defect_ends_the_job(tmp_path: Path, model: Path, two: Path) -> None:
    def defect(port: int, read: Reading) -> None:
        raise TypeError("ours")

    source = write_rows(tmp_path / "in.csv", rows(25))
    with pytest.raises(Stopped, match="TypeError: ours"):
        ran(job(source, tmp_path / "out.csv", two), Instant(model, defect))


def test_answers_that_cannot_be_trusted_are_left_out(tmp_path: Path, model: Path, two: Path) -> None:
    given = rows(MANY)
    source, out = write_rows(tmp_path / "in.jsonl", given), tmp_path / "out.jsonl"
    found = ran(job(source, out, two, id="key"), Instant(model, untrusted=lambda ids: len(ids) % 2 == 0))
    answered = read_rows(out)
    lost = [row for row in answered if row["trusted"] is False]
    assert found.marked == len(lost) > 0 and found.failed == 0
    assert all(row["label"] is row["score"] is row["scores"] is row["error"] is None for row in lost)
    sure = [i for i, row in enumerate(answered) if row["trusted"]]
    assert len(sure) == MANY - len(lost)
    right([answered[i] for i in sure], model, [given[i] for i in sure])


@pytest.mark.parametrize(("change", "told"), [
    ({"recipe": SECFORMER}, "recipe"), ({"fixed": FixedPoint(12, 14)}, "fractional bits"),
    ({"names": ("logits",)}, "results"), ("labels", "architecture: labels"), ("tokenizer", "file .*tokenizer"),
    ("truncation", "truncation"),
])
def test_cells_of_different_models_are_refused(tmp_path: Path, model: Path, change: Any, told: str) -> None:
    for number, name in enumerate("ab"):
        client_file(tmp_path / name, (9000 + 2 * number, 9001 + 2 * number),
                    **({"truncation": True} if change == "truncation" and number else {}))
    client_folder(model, tmp_path / "a")
    other = model
    if change == "labels":
        other = write_checkpoint(tmp_path / "other", "BertForSequenceClassification", labels=2)
    where = client_folder(other, tmp_path / "b", **(change if isinstance(change, dict) else {}))
    if change == "tokenizer":
        file = next(each for each in where.iterdir() if "tokenizer" in each.name)
        file.write_text(file.read_text().replace('"cat"', '"cow"') + "\n")
    listed = cells_file(tmp_path, {name: f"{name}/client.toml" for name in "ab"})
    source, asked = write_rows(tmp_path / "in.csv", rows(3)), Instant(model)
    with pytest.raises(ModelError, match=f"cells a and b hold different models.*{told}"):
        ran(job(source, tmp_path / "out.csv", listed), asked)
    assert not asked.calls


# ---- bounds, and other tasks -----------------------------------------------------------------------------------------


def test_open_rows_do_not_depend_on_the_file(tmp_path: Path, model: Path, two: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    most, begin = [0], Driver._begin

    def noted(self: Driver, piece: Any) -> None:
        begin(self, piece)
        most[0] = max(most[0], sum(map(len, self._open.values())))

    monkeypatch.setattr(Driver, "_begin", noted)
    source = write_rows(tmp_path / "in.parquet", [{"text": text} for text in texts(1500)])
    assert ran(job(source, tmp_path / "out.parquet", two, chunk=50), Instant(model)).rows == 1500
    assert 50 <= most[0] <= 400


def test_every_cell_has_calls_waiting(tmp_path: Path, model: Path, two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as its lanes, and those ahead; never more."""
    most: dict[str, int] = {}
    ask = Driver._ask

    def noted(self: Driver, crew: Any, station: Any, items: Any, units: Any) -> None:
        ask(self, crew, station, items, units)
        most[station.name] = max(most.get(station.name, 0), len(station.calls))

    monkeypatch.setattr(Driver, "_ask", noted)
    ran(job(write_rows(tmp_path / "in.csv", rows(200)), tmp_path / "out.csv", two), Instant(model))
    assert most == {"a": 4, "b": 4}


@pytest.mark.parametrize("ending", ENDINGS)
def test_embeddings(tmp_path: Path, ending: str) -> None:
    own = write_checkpoint(tmp_path / "encoder", "BertModel")
    given, out = texts(15), tmp_path / f"out{ending}"
    source = write_rows(tmp_path / "in.csv", [{"text": text} for text in given])
    ran(job(source, out, cells(tmp_path / "cells", own), Embed()), Instant(own))
    wanted = [np.asarray(Instant(own).answer([text]).embeddings)[0] for text in given]
    found = read_rows(out)
    vectors = [json.loads(row["embedding"]) if ending == ".csv" else row["embedding"] for row in found]
    assert np.allclose(vectors, wanted, atol=1e-6)
    if ending == ".parquet":
        assert pq.read_schema(out).field("embedding").type == pa.list_(pa.float32(), len(wanted[0]))


def test_rerank_reads_two_columns(tmp_path: Path) -> None:
    own = write_checkpoint(tmp_path / "ranker", "BertForSequenceClassification", labels=1)
    given = [{"query": text, "document": text[:9]} for text in texts(15)]
    given[4]["document"] = None  # type: ignore[assignment]
    source = write_rows(tmp_path / "in.jsonl", given)
    ran(job(source, tmp_path / "out.jsonl", cells(tmp_path / "cells", own), Rerank()), Instant(own))
    found = read_rows(tmp_path / "out.jsonl")
    assert found[4]["error"] == "'document' is null, not a text" and found[4]["score"] is None
    for i, row in enumerate(given):
        if i != 4:
            scores = Instant(own).answer([(row["query"], row["document"])]).scores
            assert scores is not None and np.isclose(found[i]["score"], scores[0])


@pytest.mark.parametrize("ending", ENDINGS)
def test_entities(tmp_path: Path, ending: str) -> None:
    own = write_checkpoint(tmp_path / "tagger", "BertForTokenClassification")
    given, out = texts(15), tmp_path / f"out{ending}"
    source = write_rows(tmp_path / "in.csv", [{"text": text} for text in given])
    ran(job(source, out, cells(tmp_path / "cells", own), Entities()), Instant(own))
    found = read_rows(out)
    for row, text in zip(found, given, strict=True):
        listed = json.loads(row["entities"]) if ending == ".csv" else row["entities"]
        (answer,) = Instant(own).answer([text]).answers or ()
        assert [(each["label"], each["text"], each["start"]) for each in listed] == [
            (each.label, each.text, each.start) for each in answer.entities]  # type: ignore[union-attr]
        assert all(text[each["start"]:each["end"]] == each["text"] for each in listed)


def test_a_task_that_the_model_does_not_have_is_refused(tmp_path: Path, model: Path, two: Path) -> None:
    source = write_rows(tmp_path / "in.csv", [{"text": "a", "query": "a", "document": "a"}])
    for task, told in ((Embed(), "embed needs a model of the class"), (Entities(), "entities needs"),
                       (Rerank(), "one output")):
        with pytest.raises(ModelError, match=told):
            ran(job(source, tmp_path / "out.csv", two, task), Instant(model))


def test_options_are_checked(tmp_path: Path, two: Path) -> None:
    for options in ({"chunk": 0}, {"patience": 0.0}, {"columns": ("a", "b")}):
        with pytest.raises(SettingsError):
            job(tmp_path / "in.csv", tmp_path / "out.csv", two, Classify(), **options)
