"""The kept inputs of the fuzzing, through every target, without the fuzzer."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the ports need the extra `serve`")
pytest.importorskip("prometheus_client", reason="the ports need the extra `serve`")

from fuzz.target import CORPUS, Target, accepted
from fuzz.targets import TARGETS

MOST = 48 << 20     # bytes that a reader may take for an input of a few kilobytes
MOST_KEPT = 1 << 20  # bytes of all inputs that are kept
targets = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@targets
def test_no_input_breaks_the_contract(target: Target, tmp_path: Path) -> None:
    with target.open(tmp_path) as read:
        for data in target.inputs():  # what is loaded or compiled once is not counted
            accepted(read, data)
        tracemalloc.start()
        try:
            for data in target.inputs():
                tracemalloc.reset_peak()
                before, _ = tracemalloc.get_traced_memory()
                accepted(read, data)
                _, peak = tracemalloc.get_traced_memory()
                assert peak - before < MOST, f"{len(data)} bytes make the reader take {peak - before}: {data[:200]!r}"
        finally:
            tracemalloc.stop()


@targets
def test_valid_examples_are_accepted(target: Target, tmp_path: Path) -> None:
    """Else a target would fuzz nothing but the first check."""
    with target.open(tmp_path) as read:
        valid = sorted(target.corpus.glob("valid-*"))
        assert valid and any(accepted(read, path.read_bytes()) for path in valid)


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {target.name for target in TARGETS}
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MOST_KEPT
