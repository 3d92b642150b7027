"""Fuzzes targets one after the other, each in a process of its own, and records what was run.

    python -m fuzz --runs 10000                      every target, from the kept corpus on
    python -m fuzz --target plan --seconds 60
    python -m fuzz --runs 10000 --keep --record bench/results/fuzz.json

Findings are kept below `--work`, each with its traceback. The exit status is 1 where there are any.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fuzz.target import Target
from fuzz.targets import TARGETS

SLOW = 10           # seconds that one input may take
MOST_MEMORY = 1024  # MB that the process of a target may have
KEPT = 1 << 15      # bytes of a target's corpus that are kept; valid examples always are
STATISTICS = {"inputs": "number_of_executed_units", "slowest_seconds": "slowest_unit_time_sec",
              "peak_memory_mb": "peak_rss_mb"}


def main(arguments: list[str]) -> int:
    args = _settings().parse_args(arguments)
    known = {each.name: each for each in TARGETS}
    chosen = [known[name] for name in args.target or known]
    rows: dict[str, Any] = {}
    for target in chosen:
        rows[target.name] = row = fuzzed(target, args.work / target.name, args.runs, args.seconds)
        print(f"{target.name}: {row}", flush=True)
        if args.record is not None:
            record(args.record, rows)
        if args.keep and not row["findings"]:
            keep(target, args.work / target.name)
    return int(any(row["findings"] for row in rows.values()))


def _settings() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=[each.name for each in TARGETS], help="default: all")
    parser.add_argument("--runs", type=int, default=10_000, help="inputs for each target (default: 10000)")
    parser.add_argument("--seconds", type=int, default=0, help="at most so many for each target (default: no limit)")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "secformer-fuzz",
                        help="folder of working corpora and findings")
    parser.add_argument("--keep", action="store_true",
                        help="put the smallest inputs with the same coverage into the corpus")
    parser.add_argument("--record", type=Path, help="JSON file for what was run; other targets stay in it")
    return parser


def fuzzed(target: Target, work: Path, runs: int, seconds: int) -> dict[str, Any]:
    """Fuzzes one target, from its corpus and its working corpus on: what was run and what was reached."""
    (work / "inputs").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work / "findings", ignore_errors=True)
    said = _child(target, work, [str(work / "inputs"), str(target.corpus), f"-runs={runs}", f"-timeout={SLOW}",
                                 f"-max_total_time={seconds}", f"-rss_limit_mb={MOST_MEMORY}",
                                 "-print_final_stats=1", f"-artifact_prefix={work}/ended-"])
    row: dict[str, Any] = {name: int(_last(rf"stat::{key}:\s+(\d+)", said)) for name, key in STATISTICS.items()}
    row |= {"coverage": int(_last(r" cov: (\d+)", said)), "features": int(_last(r" ft: (\d+)", said))}
    memory = [int(found) for found in re.findall(r" rss: (\d+)Mb", said)]
    row["growth_mb"] = memory[-1] - memory[len(memory) // 2] if memory else 0
    findings = sorted(path.stem for path in (work / "findings").glob("*.txt"))
    return row | {"findings": [*findings, *re.findall(r"SUMMARY: (libFuzzer: .*)", said)]}


def keep(target: Target, work: Path) -> None:
    """Replaces a target's kept inputs, but for the valid examples, by the smallest with the same coverage, up to
    `KEPT` bytes."""
    merged = work / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir()
    _child(target, work, ["-merge=1", str(merged), str(target.corpus), str(work / "inputs")])
    valid = {path.read_bytes() for path in target.corpus.glob("valid-*")}
    for path in target.corpus.glob("*"):
        if not path.name.startswith("valid-"):
            path.unlink()
    left = KEPT
    for path in sorted(merged.iterdir(), key=lambda path: path.stat().st_size):
        left -= path.stat().st_size
        if left >= 0 and path.read_bytes() not in valid:
            shutil.copyfile(path, target.corpus / path.name[:12])


def record(path: Path, rows: dict[str, Any]) -> None:
    """Writes what was run; targets that were not run now keep what the file says of them."""
    before = json.loads(path.read_text("utf-8"))["targets"] if path.is_file() else {}
    rows = {each.name: (before | rows)[each.name] for each in TARGETS if each.name in before | rows}
    facts = {"machine": {"python": platform.python_version(), "atheris": version("atheris"),
                         "processor": platform.machine()},
             "inputs": sum(row["inputs"] for row in rows.values()),
             "findings": sum(len(row["findings"]) for row in rows.values()),
             "mended": (Path(__file__).parent / "mended.txt").read_text("utf-8").splitlines(), "targets": rows}
    path.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def _child(target: Target, work: Path, arguments: list[str]) -> str:
    done = subprocess.run([sys.executable, "-m", "fuzz.one", target.name, str(work / "findings"),
                           ",".join(target.modules), *arguments],
                          capture_output=True, cwd=Path(__file__).parents[1], check=False)
    said = done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace")
    if "INFO: seed corpus" not in said and "MERGE-OUTER" not in said:
        raise SystemExit(f"{target.name} did not start:\n{said[-4000:]}")
    return said


def _last(pattern: str, text: str) -> str:
    return (re.findall(pattern, text) or ["0"])[-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
