"""The map of the modules, made from their docstrings.

    python docs/make_map.py             writes docs/modules.md
    python docs/make_map.py --check     exits with code 1 where the file is not what would be written

A test runs the check. What a row says is the first sentence of the module's docstring: change it there.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/labs"))

from tree import modules, package_dirs  # noqa: E402  (the one reader of setup.cfg's packages lives with the tests)

PAGE = ROOT / "docs/modules.md"
HEAD = """\
# Module map

Read this page to find the file that does something. It is made from the modules' docstrings by
`python docs/make_map.py`; do not edit it by hand.

Imports point one way: `mpc`, then `protocols`, then `models`, then `secformer`. The full order is in
`tests/test_layers.py`, which reads the sources and holds them to it. [Design](design.md) says how the parts fit.
"""


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, on one line, without its full stop."""
    text = ast.get_docstring(ast.parse((ROOT / path).read_text("utf-8"))) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"\.(?= [A-Z`]|$)", paragraph, maxsplit=1)[0].replace("|", "\\|")


def page() -> str:
    """The whole page: a section for each package, in the order of setup.cfg, and a row for each module."""
    found, sections = modules(), [HEAD]
    for package, folder in package_dirs().items():
        rows = [f"| `{path.as_posix()}` | {first_sentence(path)} |"
                for path in found.values() if path.parent == Path(folder)]
        sections.append("\n".join([f"## {package}", "", "| module | what it is |", "|---|---|", *rows]) + "\n")
    return "\n".join(sections)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with code 1 if the page is stale")
    args = parser.parse_args(argv)
    made = page()
    if args.check:
        there = PAGE.read_text("utf-8") if PAGE.is_file() else ""
        if made != there:
            print(f"{PAGE.relative_to(ROOT)} is stale: run `python docs/make_map.py`", file=sys.stderr)
        return int(made != there)
    PAGE.write_text(made, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
