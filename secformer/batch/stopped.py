"""The end of a job before its end."""

from __future__ import annotations

from pathlib import Path

from secformer.mpc.errors import SecformerError

AGAIN = "finished parts are kept: run the same command again to go on"


class Stopped(SecformerError, RuntimeError):
    """A job that ended early. Its finished parts are kept."""


def cannot_write(path: Path, error: OSError) -> Stopped:
    """For a disk that is full, or another refusal of the system."""
    return Stopped(f"cannot write {path}: {error.strerror or error}; make room, or mend the folder. Then {AGAIN}")
