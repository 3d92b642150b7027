"""How the keys of streams reach a kernel: by value; in a run that is recorded, as rows of a table in device memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from secformer.mpc.errors import NotRecordable
from secformer.mpc.kernels.words import Array, Key

ROW = 4  # words of a key
BY_VALUE = np.int32(-1)
_NO_PARTS = (np.uint64(0),) * ROW
_Recorded = tuple[Array, Mapping[bytes, int]]  # a table (rows, 4), and where each key stands in it


class Keys:
    """Turns a stream's key into kernel arguments: table, row, and the four words where it comes by value."""

    def __init__(self, xp: Any):
        self._nothing = xp.zeros(ROW, dtype=np.uint64)
        self._all: _Recorded | None = None  # of all threads
        self._here = threading.local()      # `recorded`: of this thread alone

    def __call__(self, key: Key) -> tuple[Any, ...]:
        """Raises NotRecordable while a run is recorded, for a key that its table does not have: the launch would carry
        it from one run to the next."""
        if not isinstance(key, bytes):  # words on the device: the only row of their table
            return key, np.int32(0), *_NO_PARTS
        recorded: _Recorded | None = getattr(self._here, "recorded", None) or self._all
        if recorded is None:
            return self._nothing, BY_VALUE, *np.frombuffer(key, dtype="<u8")
        table, rows = recorded
        if key not in rows:
            raise NotRecordable("a stream was expanded that is not of the run's plan; only those get fresh keys when "
                                "the run is repeated")
        return table, np.int32(rows[key]), *_NO_PARTS

    @contextmanager
    def recorded(self, table: Array, rows: Mapping[bytes, int]) -> Iterator[None]:
        """Inside, keys are taken from `table` (rows, 4), where `rows` says that they are."""
        self._all = table, rows
        try:
            yield
        finally:
            self._all = None

    @contextmanager
    def recorded_here(self, table: Array, rows: Mapping[bytes, int]) -> Iterator[None]:
        """As `recorded`, for this thread alone: others go on, by value."""
        self._here.recorded = table, rows
        try:
            yield
        finally:
            self._here.recorded = None
