"""The package's source files, by the names that they are imported by."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def package_dirs() -> dict[str, str]:
    """Package name to folder, as setup.cfg maps them."""
    lines = setup_cfg()["options"]["package_dir"].strip().splitlines()
    return {name.strip(): folder.strip() for name, folder in (line.split("=") for line in lines)}


def modules() -> dict[str, Path]:
    """Every module of the package: import name to path relative to the root."""
    found = {}
    for package, folder in package_dirs().items():
        for path in sorted((ROOT / folder).glob("*.py")):
            name = package if path.stem == "__init__" else f"{package}.{path.stem}"
            found[name] = path.relative_to(ROOT)
    return found


def but_the_notice(stderr: str) -> str:
    """What a process has said on stderr, without the line that says that it compiles kernels first: whether it is there
    depends on what ran before."""
    return "".join(line for line in stderr.splitlines(keepends=True) if "compiling the kernels" not in line)
