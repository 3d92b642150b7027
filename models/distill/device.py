"""Where torch computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from secformer.mpc.errors import BackendUnavailable, SettingsError


def device_named(name: str) -> str:
    """The device of a name: "cpu", "cuda", or "auto" for a GPU where torch sees one.

    Raises SettingsError for another name, and BackendUnavailable for "cuda" without a GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise SettingsError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable("device 'cuda': torch sees no GPU here; use auto or cpu")
    return "cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu"


@contextmanager
def flushed() -> Iterator[None]:
    """Inside, denormal numbers are rounded to 0, since they slow the processor down. Afterwards they count again."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def use_threads(count: int | None) -> None:
    """Sets the number of torch's threads."""
    if count is not None and count < 1:
        raise SettingsError(f"threads must be at least 1, got {count}")
    if count is not None:
        torch.set_num_threads(count)
