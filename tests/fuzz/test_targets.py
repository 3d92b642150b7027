"""Every source file that reads bytes from outside has a target, or a reason why it has none."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the ports need the extra `serve`")
pytest.importorskip("prometheus_client", reason="the ports need the extra `serve`")

from tree import ROOT, modules

from fuzz.target import accepted
from fuzz.targets import TARGETS

# What reads: functions by these names, or methods of anything.
READING = {"read_own", "read_foreign", "json.loads", "json.load", "tomllib.load", "tomllib.loads", "read_text",
           "read_bytes", "safe_open", "np.memmap", "_HEADER.unpack", "load_file", "recv_into", "recv",
           "load_pem_private_key"}
# Files that call one of these, and need no target of their own.
NONE = {
    "mpc/strict_json.py": "what the readers of JSON call",
    "mpc/kernels/cuda/device.py": "sources of this package",
    "mpc/kernels/cuda/ways.py": "a table of this package",
    "models/data/tokenizer_files.py": "a tokenizer's file, for the library that parses it",
    "models/distill/export.py": "the config of a model folder that was opened before",
    "models/distill/trim.py": "the config of a model folder that was opened before",
    "models/distill/resume.py": "its own training folder",
    "models/distill/tasks.py": "texts that the user trains on",
    "secformer/batch/sinks.py": "parts that the driver has written",
    "secformer/page/files.py": "files of this package",
    "secformer/page/trial.py": "certificates of roles that it started",
    "secformer/commands/files.py": "texts that the user gives",
    "secformer/page/tokenizing.py": "what the tokenizer of a model folder, opened before, writes",
    "secformer/roles/formats.py": "two words of a small JSON object, compared with ours",
    "secformer/roles/trial.py": "logs of processes that it started",
    "secformer/roles/supervising.py": "logs of processes that it started",
    "secformer/roles/worker_files.py": "which reader of settings a file is for",
}


def called(path: Path) -> set[str]:
    """Names of the functions that a file calls, with and without what they belong to."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        if isinstance(node, ast.Call):
            found |= {ast.unparse(node.func), ast.unparse(node.func).rpartition(".")[2]}
    return found


def test_every_reader_has_a_target() -> None:
    driven = {name for target in TARGETS for name in target.reads}
    readers = {path.as_posix() for path in modules().values() if called(path) & READING}
    missing = sorted(readers - driven - set(NONE))
    assert not missing, f"these files read: give them a target in fuzz/targets, or a row in NONE: {missing}"
    assert not sorted(set(NONE) - readers), "these rows name files that do not read any more"
    assert not [name for name in driven if not (ROOT / name).is_file()]


def test_names_are_there_once() -> None:
    assert len({target.name for target in TARGETS}) == len(TARGETS)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_junk_is_refused_in_the_package_s_own_words(target: object, tmp_path: Path) -> None:
    with target.open(tmp_path) as read:  # type: ignore[attr-defined]
        for junk in (b"\0" * 100, b"\xff" * 100, b"[" * 10_000, b"{}", b"9" * 5000, b"\xff" * 7 + b"\x7f" + b"{}"):
            accepted(read, junk)
