"""The `transformers` package, imported when first needed and without its advice on stderr."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from secformer.mpc.errors import ModelError


def transformers() -> Any:
    """The module `transformers`. Raises ModelError where it is not installed."""
    with quiet("transformers"):
        try:
            return importlib.import_module("transformers")
        except ImportError as error:
            raise ModelError(f"reading a model folder needs the package `transformers`, which cannot be imported here "
                             f"({error}); install it: pip install \"secformer[models]\"") from error


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Inside the block, silences a logger below ERROR. The logger's own settings do not change."""
    log = logging.getLogger(logger)
    filtered = [log, *log.handlers]  # messages of child loggers reach the handlers without passing the logger's filters
    for each in filtered:
        each.addFilter(_errors_only)
    try:
        yield
    finally:
        for each in filtered:
            each.removeFilter(_errors_only)


def _errors_only(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
