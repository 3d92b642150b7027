"""Notices that kernels were compiled while a command ran, so that its seconds can be told as what they are."""

from __future__ import annotations

import logging
from typing import Self

LOGGER = "secformer.mpc.kernels.cpu.compile_notice"  # where that is said; its module needs numba, which may be absent
NOTE = ("this run compiled the kernels, which happens once per installation and is part of the seconds above; run the "
        "command again for its usual cost")


class Compiling(logging.Filter):
    """A context manager. `notes` has the note if anything was compiled within it. The notice itself passes."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        self.notes = [NOTE]
        return True

    def __enter__(self) -> Self:
        logging.getLogger(LOGGER).addFilter(self)
        return self

    def __exit__(self, *args: object) -> None:
        logging.getLogger(LOGGER).removeFilter(self)
