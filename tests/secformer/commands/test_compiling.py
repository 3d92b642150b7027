"""A run that compiled kernels says so beside its cost; the notice on stderr stays."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint
from commands_lab import answer

import secformer
from secformer.commands.compiling import LOGGER, NOTE, Compiling


def test_what_is_compiled_is_noticed_and_passes(caplog: pytest.LogCaptureFixture) -> None:
    with Compiling() as quiet:
        pass
    with Compiling() as seen:
        logging.getLogger(LOGGER).warning("compiling")
    logging.getLogger(LOGGER).warning("later")
    assert (quiet.notes, seen.notes) == ([], [NOTE]) and [r.message for r in caplog.records] == ["compiling", "later"]
    assert not logging.getLogger(LOGGER).filters


def test_the_logger_is_the_notices_own() -> None:
    pytest.importorskip("numba")
    from secformer.mpc.kernels.cpu import compile_notice

    assert compile_notice.log.name == LOGGER


def test_infer_tells_it_in_its_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(write_checkpoint(tmp_path))
    assert NOTE not in answer(capsys, "infer", folder, "the cat", "--backend", "numpy")["notes"]
    real = secformer.secure_model

    def compiles(*some: Any, **options: Any) -> Any:
        logging.getLogger(LOGGER).warning("compiling")
        return real(*some, **options)

    monkeypatch.setattr(secformer, "secure_model", compiles)
    assert NOTE in answer(capsys, "infer", folder, "the cat", "--backend", "numpy")["notes"]
