"""Batch jobs through several cells: what one cell takes, how far more cells help, whole files, memory, and kills.

    python bench/cells.py service                      what calls of one real cell of the shipped model take
    python bench/cells.py scaling                      1 to 4 cells with these service times, and a simulation up to 256
    python bench/cells.py file --rows 10000            SST-2 through two real cells, every answer verified
    python bench/cells.py stream --rows 100000         memory of the driver, with cells that answer in plaintext
    python bench/cells.py kills                        kill -9 of each role, of a worker and of the driver

`service` comes first: `scaling` reads its result. Cells of `scaling` and `stream` are real workers on Ray, whose
parties are simulated (`cells_stand_in`): on a machine with few cores, real parties of several cells would share them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from cells_files import SHARED, cells_file, rows_file, running, sentences, verified
from cells_kills import kills
from cells_model import Measured, rate
from cells_stand_in import Service, StandIn, Timed
from pictures import FIGURES, canvas, plain_ticks, save
from report import RESULTS, record

from secformer import demo_model
from secformer.batch.driver import Progress
from secformer.batch.job import Job, Summary, run_job
from secformer.batch.stations import AHEAD
from secformer.batch.tasks import Classify
from secformer.batch.worker import Opener
from secformer.models.run.networks import LAN, WAN

CELLS = (1, 2, 3, 4)
SIMULATED = (1, 2, 3, 4, 8, 16, 32, 64, 128, 256)
LINEAR, AGREE, TWO = 0.9, 0.1, 1.8  # targets: of linear; between simulation and measurement; two cells over one
ONE_AT_A_TIME = "in_flight = 1\n"


def job_of(folder: Path, source: Path, cells: Path, name: str = "out") -> Job:
    return Job(source, folder / f"{name}.parquet", cells, Classify(), ("text",), id="id")


@dataclass(frozen=True)
class Pace:
    """How fast a job ran while it was under way: from its first answers until few are left. The start of Ray and of
    the workers, and their end, take some seconds, however large the file is.

    driver   processor seconds of the driver
    """

    rows: int
    seconds: float
    driver: float

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


def timed(job: Job, opener: Opener | None = None, tell: Callable[[Progress], None] | None = None
          ) -> tuple[Summary, Pace]:
    """How a job ended, and its pace."""
    seen: list[tuple[int, float, float]] = []

    def told(progress: Progress) -> None:
        if progress.answered:
            seen.append((progress.answered, progress.seconds, time.process_time()))
        if tell is not None:
            tell(progress)

    summary = run_job(job, told, **({} if opener is None else {"opener": opener}))
    first, last = seen[0], [each for each in seen if each[0] < summary.answered][-1]
    return summary, Pace(*(after - before for before, after in zip(first, last, strict=True)))


# ---- one real cell ---------------------------------------------------------------------------------------------------


def service(args: argparse.Namespace, at: Path) -> int:
    """One real cell, one request at a time: seconds of each call, by its positions, and bytes of a row."""
    texts = sentences(args.rows or 800, args.data)
    source, noted = rows_file(at, texts), at / "noted"
    with running(at, 1, ONE_AT_A_TIME) as roles:
        cells = cells_file(at, [each.settings("client") for each in roles])
        timed(job_of(at, rows_file(at, texts[:64]), cells, "warm"))
        source = rows_file(at, texts)
        summary, pace = timed(job_of(at, source, cells), Timed(noted))
    error = verified(at / "out.parquet", texts)
    calls = np.loadtxt(noted)[:, :2]
    slope, base = np.polyfit(calls[:, 0], calls[:, 1], 1)
    record("cells-service", {
        "model": "shipped", "rows": len(texts), "error_of_a_probability": error, "seconds": summary.seconds,
        "rows_per_second": pace.rate, "bytes_per_row": summary.bytes / len(texts),
        "client_bytes_per_row": client_bytes(texts[:256]),
        "base_seconds": float(base), "seconds_per_position": float(slope),
        "calls": [[int(positions), round(each, 4)] for positions, each in calls.tolist()],
    }, args.out)
    print(f"{pace.rate:.1f} rows/s; a call takes {base:.2f} s and {1e3 * slope:.2f} ms a position")
    return 0


def client_bytes(texts: Sequence[str]) -> float:
    """What a client sends to both parties for a row, on average, if rows go alone."""
    from secformer.models.data.batch import batches
    from secformer.models.data.tokenizer import Tokenizer
    from secformer.models.run.provisioning import write_shares
    from secformer.models.run.public import CLIENT_FOLDER, PublicModel
    from secformer.roles.halves import fresh_id, halves_of
    from secformer.roles.messages import pack_half

    with tempfile.TemporaryDirectory() as at:
        write_shares(demo_model(), Path(at))
        public = PublicModel.load(Path(at) / CLIENT_FOLDER)
        rows = Tokenizer(Path(at) / CLIENT_FOLDER, public.inputs).read(list(texts)).rows
        sent = [len(pack_half(half)) for _, batch in batches(rows, 1)
                for half in halves_of(public, None, batch, fresh_id())]
    return sum(sent) / len(texts)


# ---- many cells ------------------------------------------------------------------------------------------------------


def scaling(args: argparse.Namespace, at: Path) -> int:
    """Rows per second of one file through 1 to 4 cells with simulated parties, beside the simulation, and that for up
    to 256. The simulation draws the service times of the job's own calls."""
    own = json.loads((args.out / "cells-service.json").read_text("utf-8"))
    of = Service(own["base_seconds"], own["seconds_per_position"])
    measured: dict[str, Any] = {}
    between, texts = 0.0, sentences(args.rows or 2400, args.data)
    source = rows_file(at, texts)
    for count in CELLS:
        noted = at / f"noted-{count}"
        job = job_of(at, source, cells_file(at, stand_ins(at, count)), f"out-{count}")
        summary, pace = timed(job, StandIn(demo_model(), of, noted))
        verified(job.output, texts, 8)
        calls = np.loadtxt(noted)
        seconds = float(calls[:, 4].max() - calls[:, 3].min())
        driver = pace.driver / pace.rows * len(texts) / len(calls)
        if count == 1:  # between two calls, a worker has some work of its own
            between = (seconds - calls[:, 1].sum()) / len(calls)
        found = Measured((calls[:, 1] + between).tolist(), len(texts) / len(calls), driver, 0.0, 1 + AHEAD)
        predicted = rate(found, count, LAN.bandwidth, len(calls) // count)  # these parties are as near as this process
        measured[str(count)] = {
            "rows": len(texts), "calls": len(calls), "seconds": seconds, "rows_per_second": len(texts) / seconds,
            "simulated_rows_per_second": predicted, "simulated_over_measured": predicted * seconds / len(texts),
            "driver_processor_seconds_per_call": driver, "late_calls": float(calls[:, 2].mean()),
            "rows_by_cell": [cell.rows for cell in summary.cells]}
        print(f"{count} cells: {len(texts) / seconds:.1f} rows/s, simulated {predicted:.1f}", file=sys.stderr)
    first = measured["1"]["rows_per_second"]
    for count in CELLS:
        measured[str(count)]["of_linear"] = measured[str(count)]["rows_per_second"] / (first * count)
    driver = statistics.median(each["driver_processor_seconds_per_call"] for each in measured.values())
    plain = replace(found, driver=driver, carried=own["client_bytes_per_row"] * found.rows)
    simulated = {name: {str(n): rate(plain, n, network.bandwidth) for n in SIMULATED}
                 for name, network in (("LAN", LAN), ("WAN", WAN))}
    record("cells-scaling", {
        "service": {"measured": own["when"], "base_seconds": of.base, "seconds_per_position": of.each},
        "driver_processor_seconds_per_call": driver, "rows_per_call": plain.rows, "bytes_per_call": plain.carried,
        "measured": measured, "simulated_rows_per_second": simulated,
        "targets": {"of_linear": LINEAR, "simulation": AGREE}}, args.out)
    picture(measured, simulated, args.out)
    worst = min(each["of_linear"] for each in measured.values())
    apart = max(abs(each["simulated_over_measured"] - 1.0) for each in measured.values())
    print(f"at least {worst:.3f} of linear (target {LINEAR}); the simulation is off by at most {100 * apart:.1f} % "
          f"(target {100 * AGREE:g} %)")
    return 0 if worst >= LINEAR and apart <= AGREE else 1


def stand_ins(at: Path, count: int) -> list[Path]:
    """Clients' settings of cells that nobody starts: each names parties of its own."""
    from secformer.models.run.provisioning import write_shares
    from secformer.models.run.public import CLIENT_FOLDER
    from secformer.roles.certificates import init
    from secformer.roles.trial import LISTENERS

    found = []
    for i in range(count):
        folder = at / f"stand-in-{i}"
        if not folder.exists():
            init(folder, ports={name: 9000 + len(LISTENERS) * i + k for k, name in enumerate(LISTENERS)})
            write_shares(demo_model(), folder / "shares")
            (folder / "shares" / CLIENT_FOLDER).rename(folder / "client" / "model")
            file = folder / "client" / "client.toml"
            file.write_text(ONE_AT_A_TIME + file.read_text("utf-8"), "utf-8")
        found.append(folder / "client" / "client.toml")
    return found


def picture(measured: dict[str, Any], simulated: dict[str, Any], out: Path) -> Path:
    """Rows per second by the number of cells: measured as dots, simulated as lines."""
    figure, (panel,) = canvas(1, width=6.2, title="A batch job through 1 to 256 cells")
    one = measured["1"]["rows_per_second"]
    panel.plot(SIMULATED, [one * n for n in SIMULATED], color="#b9c0c7", linestyle=(0, (5, 3)), label="linear")
    for (name, rates), colour in zip(simulated.items(), ("#2f6fb3", "#e08a1e"), strict=True):
        panel.plot([int(n) for n in rates], list(rates.values()), color=colour, label=f"simulated, client on a {name}")
    panel.plot([int(n) for n in measured], [each["rows_per_second"] for each in measured.values()], "o",
               color="#1f2328", label="measured, parties simulated")
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set(xlabel="cells", ylabel="rows per second")
    plain_ticks(panel.xaxis, [float(n) for n in SIMULATED])
    plain_ticks(panel.yaxis)
    panel.legend(frameon=False)
    return save(figure, "cells-scaling", FIGURES if out == RESULTS else out)


# ---- whole files -----------------------------------------------------------------------------------------------------


def file(args: argparse.Namespace, at: Path) -> int:
    """SST-2 through real cells; the answers are those of the model in plaintext, and, for some, of this process."""
    texts = sentences(args.rows or 10_000, args.data)
    with running(at, args.cells) as roles:
        cells = cells_file(at, [each.settings("client") for each in roles])
        summary, pace = timed(job_of(at, rows_file(at, texts), cells), tell=told)
    error = verified(at / "out.parquet", texts)
    record("cells-file", {
        "model": "shipped", "cells": args.cells, "rows": len(texts), "seconds": summary.seconds,
        "rows_per_second": pace.rate, "bytes_per_row": summary.bytes / len(texts),
        "driver_processor_seconds": pace.driver, "error_of_a_probability": error, "errors": summary.failed,
        "marked": summary.marked, "rows_by_cell": [cell.rows for cell in summary.cells]}, args.out)
    print(f"{len(texts)} rows, each once, in {summary.seconds:.0f} s: {pace.rate:.1f} rows/s")
    return 0


def stream(args: argparse.Namespace, at: Path) -> int:
    """Memory of the driver while many rows go through it."""
    texts, seen = sentences(args.rows or 100_000, args.data), []

    def tell(progress: Progress) -> None:
        seen.append((progress.rows, resident()))

    job = job_of(at, rows_file(at, texts), cells_file(at, stand_ins(at, 2)))
    count = len(texts)
    del texts
    summary, pace = timed(job, StandIn(demo_model(), Service(0.0, 0.0)), tell)
    texts = sentences(count, args.data)
    verified(job.output, texts, 50)
    tenth = [memory for rows, memory in seen if rows >= count // 10]
    result = {"rows": count, "seconds": summary.seconds,
              "driver_processor_seconds_per_1000_rows": 1000 * pace.driver / pace.rows,
              "megabytes_after_a_tenth": tenth[0] / 1e6, "megabytes_at_most_after_that": max(tenth) / 1e6,
              "megabytes_at_the_end": tenth[-1] / 1e6}
    record("cells-stream", result, args.out)
    print(f"{count} rows: {result['megabytes_after_a_tenth']:.0f} MB after a tenth of them, at most "
          f"{result['megabytes_at_most_after_that']:.0f} MB after that")
    return 0 if max(tenth) <= 1.1 * tenth[0] else 1


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def told(progress: Progress) -> None:
    print(f"\r  {progress.rows} rows, {progress.rate:.1f} a second {progress.waiting}", end="", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("service", "scaling", "file", "stream", "kills"))
    parser.add_argument("--data", type=Path, default=SHARED, help="sentences: a file of GLUE's SST-2")
    parser.add_argument("--rows", type=int, help="rows of the file")
    parser.add_argument("--cells", type=int, default=2, help="real cells, for `file`")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as at:
        return int({"service": service, "scaling": scaling, "file": file, "stream": stream, "kills": kills}[
            args.what](args, Path(at)))


if __name__ == "__main__":
    sys.exit(main())
