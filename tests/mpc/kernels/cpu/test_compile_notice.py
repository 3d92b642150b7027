"""The line that says that kernels are being compiled: once, and only when they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("numba")

from secformer.mpc.kernels.cpu.compile_notice import NOTICE, CompileNotice

ROOT = Path(__file__).resolve().parents[4]
FIRST_USE = """
import numpy as np
from secformer.mpc.backend import Backend
from secformer.mpc.kernels import kernels_for
kernels = kernels_for(Backend("numpy", np, 1))
kernels.pack(np.arange(9, dtype=np.uint64), 24)
kernels.unpack(np.zeros(27, dtype=np.uint8), 9, 24)
"""


def first_use(cache: Path) -> str:
    """stderr of a fresh process that uses two kernels, with numba's cache in a folder."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", FIRST_USE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_it_shows_once_where_nothing_is_cached_and_not_again(tmp_path: Path) -> None:
    assert first_use(tmp_path).splitlines() == [NOTICE]  # two kernels compile: one line
    assert first_use(tmp_path) == ""


def test_other_modules_compile_in_silence() -> None:
    said: list[str] = []
    notice = CompileNotice("ours", "also ours", say=said.append)

    def starts(module: str) -> None:
        notice.on_start(SimpleNamespace(data={"dispatcher": SimpleNamespace(__module__=module)}))

    starts("theirs")
    assert said == []
    starts("ours")
    starts("ours")
    assert said == [NOTICE]
