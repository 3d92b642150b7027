"""Files of roles: for their owner alone, and whole after a power cut."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def owner_only(path: str | Path, flags: int) -> int:
    """For `open(..., opener=owner_only)`: a file that only its owner may read, also where it was there before."""
    handle = os.open(path, flags, 0o600)
    os.fchmod(handle, 0o600)
    return handle


def sync_folder(folder: Path) -> None:
    """Makes new names last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rewrite(path: Path, content: str, opener: Callable[[str, int], int] = owner_only) -> None:
    """Writes a text file, by default for its owner alone. It appears whole, and lasts through a power cut; until then
    the file of that name is as it was. Raises OSError."""
    part = path.with_suffix(f"{path.suffix}.part")
    part.unlink(missing_ok=True)
    with open(part, "x", encoding="utf-8", opener=opener) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # else a power cut may leave the new name with nothing in it
    part.replace(path)
    sync_folder(path.parent)
