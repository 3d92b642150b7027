"""The command that answers a whole file by many cells: batch."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secformer.commands import arguments, files
from secformer.commands.common import Commands, show

if TYPE_CHECKING:
    from secformer.batch.driver import Progress, Tell
    from secformer.batch.tasks import Task

NEEDED = ("ray", "pyarrow")
TASKS = ("embed", "classify", "rerank", "entities", "generate")
PAIR = "rerank"  # the task that reads two columns
CHUNK, PATIENCE = 1024, 600.0  # as in `Job`


def batch(args: argparse.Namespace) -> None:
    columns = _columns(args)
    _check_tokens(args)
    files.readable(args.source, "IN", "give the file that holds the texts")
    files.readable(args.cells, "--cells", "give a list of cells: a table [[cell]] with name and settings for each")
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        from secformer.mpc.errors import SettingsError

        raise SettingsError(f"batch needs the extra `batch`; not installed: {', '.join(missing)}. Install it: pip "
                            f'install "secformer[batch]"')
    from secformer.batch.job import Job, run_job
    from secformer.views import batch as views

    job = Job(Path(args.source), Path(args.out), Path(args.cells), _task(args), columns, id=args.id,
              keep=tuple(args.keep or ()), chunk=args.chunk, truncation=args.truncation, strict=args.strict,
              overwrite=args.overwrite, restart=args.restart, patience=args.patience, ray=args.ray)
    with _shown(args) as tell, redirect_stdout(sys.stderr):  # Ray writes there what it thinks of dead workers
        try:
            summary = run_job(job, tell)
        except KeyboardInterrupt:
            print("secformer: finished parts are kept: run the same command again to go on", file=sys.stderr)
            raise
    show(args, summary.as_dict(), views.summary(summary, args.out))


def _columns(args: argparse.Namespace) -> tuple[str, ...]:
    """The columns that the task reads. Options of another task are a usage error."""
    pair = args.task == PAIR
    if pair and args.text is not None:
        args.usage("rerank reads two columns: name them with --query and --document")
    if not pair and (args.query is not None or args.document is not None):
        args.usage(f"{args.task} reads one column: name it with --text")
    return (args.query or "query", args.document or "document") if pair else (args.text or "text",)


def _check_tokens(args: argparse.Namespace) -> None:
    """Options of generation with another task are a usage error."""
    if args.task == "generate":
        return
    given = [name for name in (*arguments.SAMPLING, "system") if getattr(args, name) is not None]
    if given or args.continued:
        name = given[0].replace("_", "-") if given else "continue"
        args.usage(f"--{name} is for --task generate; leave it out")


def _task(args: argparse.Namespace) -> Task:
    from secformer.batch.tasks import READING, Generate

    if args.task in READING:
        return READING[args.task]()
    sampling = arguments.sampled(args)
    return Generate(sampling, seed=sampling.pop("seed", 0), system=args.system, continued=args.continued)


@contextmanager
def _shown(args: argparse.Namespace) -> Iterator[Tell]:
    """A bar on stderr with the rate and the time left; nothing with --quiet, or where stderr is not a terminal, but for
    what the job waits for."""
    from secformer.batch.driver import silent

    if args.quiet:
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    from secformer.views import batch as views

    console = Console(stderr=True)
    told: list[str] = [""]

    def note(progress: Progress) -> None:
        if progress.waiting != told[0]:
            told[0] = progress.waiting
            console.print(f"secformer: {views.waiting(progress)}", highlight=False, markup=False, soft_wrap=True)

    if not console.is_terminal:
        yield note
        return
    columns: Any = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)

        def tell(progress: Progress) -> None:
            note(progress)
            bar.update(task, completed=progress.share, description=views.progress(progress))

        yield tell


_BATCH = """\
Answers every row of a file by many cells: pairs of served parties that hold one model. Reads and writes Parquet, CSV
and JSON lines, by the files' endings. Each row is written once, with its id or number. The column `error` says why a
row could not be answered. Where `trusted` is false, the answer cannot be trusted and is left out. A job that was
stopped goes on when the same command is run again. Workers run on Ray, on this machine or on a cluster of your own
domain. It needs the extra `batch`.

examples:
  secformer batch reviews.parquet labels.parquet --cells cells.toml --task classify --text review --id review_id
  secformer batch texts.jsonl vectors.parquet --cells cells.toml --task embed
  secformer batch pairs.csv scores.csv --cells cells.toml --task rerank --query question --document passage
  secformer batch prompts.jsonl answers.jsonl --cells cells.toml --task generate --max-new-tokens 50 --seed 1
"""


def add(commands: Commands) -> None:
    """Adds this command to the command line."""
    p = commands.add("batch", batch, "answer a whole file by many cells", _BATCH)
    p.add_argument("source", metavar="IN", help="file of texts: .parquet, .csv or .jsonl")
    p.add_argument("out", metavar="OUT", help="file to write: .parquet, .csv or .jsonl")
    p.add_argument("--cells", required=True, metavar="FILE", help="list of cells (TOML)")
    p.add_argument("--task", required=True, choices=TASKS, help="what is asked of each row")
    for name, about in (("text", "texts"), ("query", "queries of rerank"), ("document", "documents of rerank")):
        p.add_argument(f"--{name}", metavar="COLUMN", help=f"column of the {about} (default: {name})")
    p.add_argument("--id", metavar="COLUMN", help="column that names rows (default: their numbers, from 0)")
    p.add_argument("--keep", action="append", metavar="COLUMN",
                   help="another column that goes into the output; may be given repeatedly")
    arguments.truncation(p)
    p.add_argument("--strict", action="store_true", help="stop at the first row that cannot be answered")
    p.add_argument("--overwrite", action="store_true", help="replace OUT if it is there, when the new one is whole")
    p.add_argument("--restart", action="store_true", help="throw away what an earlier, stopped run has done")
    p.add_argument("--chunk", type=int, default=CHUNK, metavar="ROWS",
                   help=f"rows that are kept together when a job stops (default {CHUNK})")
    p.add_argument("--patience", type=float, default=PATIENCE, metavar="SECONDS",
                   help=f"how long to wait while no cell serves (default {PATIENCE:g})")
    p.add_argument("--ray", metavar="ADDRESS",
                   help="a Ray cluster of your own domain (default: Ray is started on this machine)")
    p.add_argument("--quiet", action="store_true", help="show no progress")
    p.add_argument("--system", metavar="TEXT", help="generate: system prompt of every row")
    p.add_argument("--continue", action="store_true", dest="continued",
                   help="generate: continue texts as they stand, although the model has a chat template")
    arguments.sampling(p)
