"""Another version of the package, for processes of real roles: links to our files, copies of those that differ."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import secformer

OURS = Path(secformer.__file__).resolve().parents[1]  # the installed package, whose kernels are compiled
VERSION, REQUEST = "secformer/version.py", "secformer/roles/messages.py"


def another(folder: Path, version: str, changes: Mapping[str, tuple[str, str]] | None = None) -> dict[str, str]:
    """The environment of a process that runs such a version. `changes` says, by file, which text has another in its
    place."""
    _linked(OURS / "secformer", folder / "secformer")
    told = OURS.joinpath(VERSION).read_text("utf-8").split('"')[-2]
    for file, (old, new) in {VERSION: (f'"{told}"', f'"{version}"'), **(changes or {})}.items():
        place = folder / file
        for up in reversed([p for p in place.relative_to(folder).parents if p.parts]):
            if (folder / up).is_symlink():
                (folder / up).unlink()
                _linked(OURS / up, folder / up)
        text = OURS.joinpath(file).read_text("utf-8")
        assert text.count(old) == 1, (file, old)
        place.unlink()
        place.write_text(text.replace(old, new), "utf-8")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}  # else the folder that a process starts in comes first


def _linked(there: Path, here: Path) -> None:
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir(parents=True)
    for entry in there.iterdir():
        if entry.name != "__pycache__":
            (here / entry.name).symlink_to(entry.resolve())
