"""The package's source files, by the names that they are imported by."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator
from functools import cache
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


@cache
def modules() -> dict[str, Path]:
    """Every module of the package: import name to path relative to the root."""
    found = {}
    for package, folder in package_dirs().items():
        for path in sorted((ROOT / folder).glob("*.py")):
            name = package if path.stem == "__init__" else f"{package}.{path.stem}"
            found[name] = path.relative_to(ROOT)
    return found


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports, those for type checkers too, as full names."""
    known = modules()

    def visit(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in known else node.module
        else:
            for child in ast.iter_child_nodes(node):
                yield from visit(child)

    yield from visit(ast.parse((ROOT / path).read_text("utf-8")))


def but_the_notice(stderr: str) -> str:
    """What a process has said on stderr, without the line that says that it compiles kernels first: whether it is there
    depends on what ran before."""
    return "".join(line for line in stderr.splitlines(keepends=True) if "compiling the kernels" not in line)
