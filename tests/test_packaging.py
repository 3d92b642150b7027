"""The package as a stranger gets it: what is declared, what is on disk, what lands in a wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from tree import ROOT, imports, modules, package_dirs, setup_cfg

import secformer

LINKS = ("mpc", "protocols", "models")
DEMO_FILES = ("README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
LEFT_OUT = ("build", "dist", "__pycache__", ".*", "*.egg-info", "venv", "bench", "docs", "tests")
LARGEST_WEIGHTS = 8_000_000


def test_packages_are_the_folders_on_disk() -> None:
    declared = setup_cfg()["options"]["packages"].split()
    assert declared == list(package_dirs()), "packages and package_dir in setup.cfg list different packages"
    on_disk = {"secformer": "secformer", "secformer.commands": "secformer/commands",
               "secformer.page": "secformer/page", "secformer.roles": "secformer/roles",
               "secformer.cells": "secformer/cells", "secformer.batch": "secformer/batch",
               "secformer.gateway": "secformer/gateway",
               "secformer.views": "secformer/views"}
    for top in LINKS:
        for init in sorted((ROOT / top).rglob("__init__.py")):
            folder = init.parent.relative_to(ROOT)
            on_disk["secformer." + ".".join(folder.parts)] = folder.as_posix()
    assert package_dirs() == on_disk


def test_no_module_outside_a_package() -> None:
    stray = [str(path.relative_to(ROOT)) for top in (*LINKS, "secformer") for path in (ROOT / top).rglob("*.py")
             if "__pycache__" not in path.parts and not (path.parent / "__init__.py").is_file()]
    assert not stray


@pytest.mark.parametrize("name", LINKS)
def test_links_resolve_names_in_a_checkout(name: str) -> None:
    link = ROOT / "secformer" / name
    if not link.exists():
        pytest.skip("this copy of the tree has lost its links, which builds do not need")
    assert link.is_symlink() and os.readlink(link) == f"../{name}"


def test_one_version() -> None:
    declared = setup_cfg()["metadata"]["version"]
    assert secformer.__version__ == declared
    assert f"## [{declared}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    try:
        installed = metadata.version("secformer")
    except metadata.PackageNotFoundError:
        return  # run from a checkout
    assert installed == declared


def test_every_import_is_declared() -> None:
    """Requirements, extras and the standard library are all that the package imports."""
    cfg = setup_cfg()
    declared = {line.split()[0] for line in cfg["options"]["install_requires"].strip().splitlines()}
    extras = [line.split()[0] for part in cfg["options.extras_require"].values() for line in part.strip().splitlines()]
    optional = {name.split("-cuda")[0].replace("-", "_") for name in extras}
    for name, path in modules().items():
        tops = {other.split(".")[0] for other in imports(path)} - set(sys.stdlib_module_names) - {"secformer"}
        assert tops <= declared | optional, f"{name} imports {sorted(tops - declared - optional)}"


def test_demo_model_ships() -> None:
    for name in DEMO_FILES:
        assert (secformer.demo_model() / name).is_file(), name
    assert (secformer.demo_model() / "model.safetensors").stat().st_size <= LARGEST_WEIGHTS


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a source distribution that was made of a copy of the tree without its links."""
    pytest.importorskip("build")
    if tuple(map(int, metadata.version("setuptools").split(".")[:2])) < (70, 1):
        pytest.skip("building needs setuptools 70.1 or newer, which the extra `test` brings")
    work = tmp_path_factory.mktemp("build")
    source = work / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
    for name in LINKS:
        (source / "secformer" / name).unlink(missing_ok=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(work / "dist"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = (work / "dist").glob("*.whl")
    return built


@pytest.mark.slow
def test_wheel_holds_the_package(wheel: Path) -> None:
    expected = {f"{name.replace('.', '/')}.py" for name in modules() if name not in package_dirs()}
    expected |= {f"{name.replace('.', '/')}/__init__.py" for name in package_dirs()}
    expected |= {"secformer/py.typed"} | {f"secformer/models/demo/{name}" for name in DEMO_FILES}
    expected |= {f"secformer/mpc/kernels/cuda/{path.name}" for path in (ROOT / "mpc/kernels/cuda").iterdir()
                 if path.suffix in (".cu", ".cuh", ".json")}
    expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "secformer/page/static").rglob("*")
                 if path.is_file()}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("secformer/")}
    extra = {name for name in names - expected if not name.startswith("secformer/models/demo/")}
    assert not expected - names and not extra


@pytest.mark.slow
def test_wheel_takes_no_other_name(wheel: Path) -> None:
    """`mpc`, `models` and `protocols` belong to others on the public index."""
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"secformer", f"secformer-{secformer.__version__}.dist-info"}
