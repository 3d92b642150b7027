"""Imports point one way, and things stay where they belong. Reads the sources; runs nothing of them."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from tree import ROOT, imports, modules

# Lowest first. A module belongs to the entry that is the longest prefix of its name.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("secformer.mpc", "secformer.mpc.errors"),
    ("secformer.mpc.recording", "secformer.mpc.ring", "secformer.mpc.strict_json"),
    ("secformer.mpc.constants",),
    ("secformer.mpc.backend",),
    tuple(f"secformer.mpc.kernels.{name}" for name in ("blas", "bundles", "tables", "standing", "taylor", "threads",
                                                       "words")),
    ("secformer.mpc.kernels.blocks",),
    ("secformer.mpc.kernels.points",),
    ("secformer.mpc.kernels.interface", "secformer.mpc.kernels.limbs"),
    ("secformer.mpc.kernels.reference",),
    ("secformer.mpc.kernels.cpu", "secformer.mpc.kernels.cuda"),
    ("secformer.mpc.kernels",),
    ("secformer.mpc.fixed", "secformer.mpc.prg"),
    ("secformer.mpc.points",),
    ("secformer.mpc.guards", "secformer.mpc.rounds"),
    ("secformer.mpc.functions", "secformer.mpc.shares"),
    ("secformer.mpc.scales",),
    ("secformer.mpc.caches",),
    ("secformer.mpc.primitives",),
    ("secformer.mpc.operators",),
    ("secformer.mpc.guarding",),
    ("secformer.mpc.products",),
    ("secformer.mpc.thresholding", "secformer.mpc.unit_rows"),
    ("secformer.mpc.meter",),
    ("secformer.mpc.net",),
    ("secformer.mpc.dealer",),
    ("secformer.mpc.script",),
    ("secformer.mpc.party",),
    ("secformer.mpc.ops",),
    ("secformer.mpc.session",),
    ("secformer.mpc.sessions",),
    ("secformer.mpc.programs", "secformer.mpc.segmenting"),
    ("secformer.mpc.capture",),
    ("secformer.mpc.segments", "secformer.mpc.simulate"),
    ("secformer.protocols",),
    ("secformer.models.data",),
    ("secformer.models.families",),
    ("secformer.models.ranges",),
    ("secformer.models.generation",),
    ("secformer.models.run",),
    ("secformer.models.distill",),
    ("secformer.models",),
    ("secformer.memory", "secformer.shipped", "secformer.version"),
    ("secformer.roles",),
    ("secformer.cells",),
    ("secformer.gateway",),
    ("secformer",),
    ("secformer.batch",),
    ("secformer.page", "secformer.views"),
    ("secformer.commands",),
    ("secformer.cli",),
    ("secformer.__main__",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# What may stand where: a pattern of code (comments and strings are left out), and the places that may hold it.
PLACES = [
    ("CuPy", r"\bimport cupy\b|\bfrom cupy\b", ("mpc/backend.py", "mpc/kernels/cuda/")),
    ("numba", r"\bimport (numba|llvmlite)\b|\bfrom (numba|llvmlite)\b", ("mpc/kernels/cpu/",)),
    ("a party's rank", r"\brank == 0\b", ("mpc/ops/", "mpc/dealer/", "mpc/sessions/secure.py", "secformer/roles/")),
    ("sockets", r"\bimport (socket|ssl)\b|\bfrom (socket|ssl)\b", ("mpc/net/",)),
    ("the system's randomness", r"\burandom\b|\b(import|from) (secrets|random)\b",
     ("mpc/prg.py", "models/distill/")),
    ("NumPy's generators", r"\b(np|numpy|xp)\.random\b", ("models/distill/", "models/generation/sampling.py")),
    ("revealing", r"\.reveal\(", ("models/families/program.py",)),
    ("torch", r"\bimport torch\b|\bfrom torch\b", ("models/distill/",)),
    ("printing", r"\bprint\(", ("secformer/cli.py", "secformer/commands/", "models/distill/")),
    ("argparse", r"\bimport argparse\b|\bfrom argparse\b",
     ("secformer/cli.py", "secformer/commands/", "models/distill/")),
    ("pickle", r"\b(pickle|marshal|shelve|joblib)\b|allow_pickle=True", ()),
    ("assert as validation", r"^\s*assert\b", ()),
    ("relative imports", r"^\s*from \.", ()),
]

LONGEST = 350  # lines of a source file
KNOW_FAMILIES = ("models/families/table.py", "models/distill/trim.py", "models/distill/train_demo.py")


def layer(module: str) -> int:
    name = module
    while name not in RANK:
        name = name.rpartition(".")[0]
    return RANK[name]


@cache
def code(path: Path) -> str:
    """A file's source without its comments and strings, line by line."""
    text = (ROOT / path).read_text("utf-8")
    lines = [list(line) for line in text.splitlines(keepends=True)]
    hidden = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in hidden:
            for row in range(token.start[0] - 1, token.end[0]):
                first = token.start[1] if row == token.start[0] - 1 else 0
                last = token.end[1] if row == token.end[0] - 1 else len(lines[row])
                lines[row][first:last] = [c if c == "\n" else " " for c in lines[row][first:last]]
    return "".join("".join(line) for line in lines)


@pytest.mark.parametrize("module", sorted(modules().keys() - {"secformer"}))  # the front door lists its public names
def test_imports_point_one_way(module: str) -> None:
    upward = [other for other in imports(modules()[module])
              if other.split(".")[0] == "secformer" and other in modules() and layer(other) > layer(module)]
    assert not upward, f"{module} imports what lies above it: {upward}"


def test_no_import_cycle() -> None:
    graph = {name: {other for other in imports(path) if other in modules() and other != name}
             for name, path in modules().items() if name != "secformer"}  # the front door lists its public names
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(("what", "pattern", "places"), PLACES, ids=[row[0] for row in PLACES])
def test_stays_in_its_place(what: str, pattern: str, places: tuple[str, ...]) -> None:
    found = {
        f"{path}:{number}"
        for path in modules().values()
        if not str(path).startswith(places or ("\0",))
        for number, line in enumerate(code(path).splitlines(), start=1)
        if re.search(pattern, line)
    }
    assert not found, f"{what} belongs to {places or 'nowhere'}, found in {sorted(found)}"


def test_numerical_coefficients_live_in_protocols() -> None:
    """A number with four or more significant digits is a coefficient; only protocols have those."""
    found = []
    for path in modules().values():
        if str(path).startswith(("protocols/", "models/distill/")):
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, float) and not node.value.is_integer():
                digits = repr(node.value).split("e")[0].replace(".", "").replace("-", "").strip("0")
                if len(digits) >= 4:
                    found.append(f"{path}:{node.lineno} {node.value}")
    assert not found, found


def test_every_module_says_what_it_is() -> None:
    silent = [str(path) for path in modules().values() if not ast.get_docstring(ast.parse((ROOT / path).read_text()))]
    assert not silent, f"modules without a docstring: {silent}"


def test_files_hold_one_idea() -> None:
    """A file near 300 lines wants splitting."""
    long = {str(path): n for path in modules().values()
            if (n := len((ROOT / path).read_text("utf-8").splitlines())) > LONGEST}
    assert not long, long


def test_only_the_table_knows_the_families() -> None:
    """Everything else asks an Architecture; the scripts that cut and make the shipped BERT may name theirs."""
    known = modules()
    families = {name for name, path in known.items()
                if re.search(r"^ +model_type\b.* = ", code(path), re.MULTILINE)}
    knowing = {path.as_posix() for name, path in known.items()
               if name not in families and families & set(imports(path))}
    assert families and families <= set(imports(Path(KNOW_FAMILIES[0]))), "a family that the table lacks is never run"
    assert knowing <= set(KNOW_FAMILIES), f"these import a family: {sorted(knowing - set(KNOW_FAMILIES))}"
