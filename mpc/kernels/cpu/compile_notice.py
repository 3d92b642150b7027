"""One line on stderr when a kernel is compiled, which takes seconds; nothing where the cache on disk has it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from numba.core import event

log = logging.getLogger(__name__)
NOTICE = "secformer: compiling the kernels for this machine (some seconds, once an installation)"
COMPILING = "numba:compile"  # numba reports it after it has missed its cache, before it compiles


class CompileNotice(event.Listener):  # type: ignore[misc]
    """Says so once, when numba starts to compile one of the functions of these modules."""

    def __init__(self, *modules: str, say: Callable[[str], Any] | None = None):
        self._modules, self._say, self._said = modules, say or _warn, False
        self._lock = threading.Lock()  # two parties may meet their first kernel at once

    def on_start(self, event: Any) -> None:
        if getattr(event.data["dispatcher"], "__module__", None) not in self._modules:
            return  # somebody else's function
        with self._lock:
            said, self._said = self._said, True
        if not said:
            self._say(NOTICE)

    def on_end(self, event: Any) -> None:
        pass


def announce(*modules: str) -> None:
    """Registers the notice for the kernels of these modules, for as long as the process lives."""
    event.register(COMPILING, CompileNotice(*modules))


def _warn(line: str) -> None:
    """Through `logging`, which writes warnings to stderr as they are unless a program, such as a served role, has its
    own way."""
    log.warning(line)
