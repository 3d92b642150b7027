"""What the tests of cells share: lists of cells that nobody needs to start."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tree import ROOT

from secformer.roles.settings import ClientSettings, template

TLS = {"authority": "authority.pem", "certificate": "client.pem", "key": "client.key"}


def clients_model(folder: Path) -> None:
    """A clients' folder of a tiny model that was provisioned once, with something like a tokenizer's file."""
    shutil.copytree(ROOT / "fuzz/targets/client", folder)
    (folder / "vocab.txt").write_text("a\nb\n")


def client_file(folder: Path, ports: tuple[int, int], **values: object) -> Path:
    """A client's settings file in a folder of its own; nothing that it names is there."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "client.toml"
    party0, party1 = (("127.0.0.1", port) for port in ports)
    file.write_text(template(ClientSettings, {"party0": party0, "party1": party1, "model": "model", **values}, TLS))
    return file


def cells_file(folder: Path, cells: dict[str, str | Path]) -> Path:
    """A list of cells, by name the settings file of each."""
    path = folder / "cells.toml"
    path.write_text("\n".join(f'[[cell]]\nname = "{name}"\nsettings = "{file}"\n' for name, file in cells.items()))
    return path


def listed(folder: Path, names: Sequence[str] = ("a", "b")) -> Path:
    """A list of cells with a settings file each."""
    for number, name in enumerate(names):
        client_file(folder / name, (9000 + 2 * number, 9001 + 2 * number))
    return cells_file(folder, {name: f"{name}/client.toml" for name in names})
