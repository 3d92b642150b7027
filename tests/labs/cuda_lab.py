"""CUDA kernels on the host: the sources compiled by a C++ compiler with `cuda_on_host.hpp`, behind the interface of
CuPy's modules. Arguments are checked against the kernel's parameters, and memory around every array is watched."""

from __future__ import annotations

import ctypes
import fcntl
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import secformer.mpc.kernels.cuda
from secformer.mpc.backend import choose_backend
from secformer.mpc.errors import BackendUnavailable
from secformer.mpc.kernels import Kernels, kernels_for

FOLDER = Path(secformer.mpc.kernels.cuda.__file__).parent
HERE = Path(__file__).parent
FILES = sorted(p.stem for p in FOLDER.glob("*.cu"))
TYPES = {"u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64, "int": np.int32, "i64": np.int64,
         "double": np.float64}
GUARD, FILLED = 256, 0xA7
NO_COMPILER = "no C++ compiler"
Signatures = dict[str, list[tuple[str, bool, bool]]]
Copies = dict[tuple[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]]


def compiler() -> str | None:
    return shutil.which("g++") or shutil.which("clang++")


def device() -> Kernels:
    """The CUDA kernels on a GPU; skips the test where none answers."""
    try:
        return kernels_for(choose_backend("cupy"))
    except BackendUnavailable as error:
        pytest.skip(str(error))


def signatures(path: Path, tool: str) -> Signatures:
    """The kernels of a file: for each parameter its type, whether it is a pointer, and whether that may be written."""
    done = subprocess.run([tool, "-E", "-P", "-x", "c++", "-D__global__=GLOBAL", "-D__launch_bounds__(...)=",
                           "-D__shared__=", "-D__align__(x)=", str(path)], capture_output=True, text=True, check=True)
    found = {}
    for name, parameters in re.findall(r'extern "C" GLOBAL void\s+(\w+)\(([^)]*)\)', done.stdout):
        pieces = [p.strip() for p in parameters.split(",")]
        found[name] = [(re.split(r"[ *]", p.replace("const ", ""))[0], "*" in p, "*" in p and "const " not in p)
                       for p in pieces]
    return found


def library(name: str, folder: Path, path: Path | None = None) -> tuple[ctypes.PyDLL, Signatures]:
    """One kernel file (of the package, or at `path`) as a library with a function `launch_<kernel>` for each.

    Processes that share the folder compile it once."""
    tool = compiler()
    if tool is None:
        raise FileNotFoundError(NO_COMPILER)
    path, target = path or FOLDER / f"{name}.cu", folder / f"{name}.so"
    kernels = signatures(path, tool)
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _compile(tool, path, kernels, target)
    return ctypes.PyDLL(str(target)), kernels  # keeps the interpreter lock, so one grid runs at a time


def _compile(tool: str, path: Path, kernels: Signatures, target: Path) -> None:
    lines = ['#include "cuda_on_host.hpp"', f'#include "{path}"']
    for kernel, parameters in kernels.items():
        declared = "".join(f"{kind}{'*' if pointer else ''} p{i}; " for i, (kind, pointer, _) in enumerate(parameters))
        given = ", ".join(f"a->p{i}" for i in range(len(parameters)))
        lines += [f"struct {kernel}_arguments {{ {declared}}};",
                  f"static void {kernel}_body(void* p) {{ auto* a = ({kernel}_arguments*)p; {kernel}({given}); }}",
                  f'extern "C" const char* launch_{kernel}(const unsigned* d, unsigned shared, int order, void* p) {{',
                  "    return on_host::run({d[0], d[1], d[2]}, {d[3], d[4], d[5]}, shared, order, "
                  f"{kernel}_body, p);", "}"]
    source, made = target.with_suffix(".cpp"), target.with_suffix(".made")
    source.write_text("\n".join(lines) + "\n")
    options = ["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-w", "-fPIC", "-shared"]
    done = subprocess.run([tool, *options, f"-I{HERE}", f"-I{FOLDER}", "-o", str(made), str(source)],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    made.rename(target)


class HostModules:
    """The kernel files by name, each compiled once in that folder. `order` is the order of a block's threads."""

    def __init__(self, folder: Path):
        self.order, self._folder, self._made = 0, folder, dict[str, HostModule]()

    def __call__(self, name: str) -> HostModule:
        if name not in self._made:
            self._made[name] = HostModule(name, self._folder, lambda: self.order)
        return self._made[name]


class HostModule:
    """Stands where a `cupy.RawModule` stands."""

    def __init__(self, name: str, folder: Path, order: Callable[[], int] = lambda: 0, path: Path | None = None):
        self._library, self._kernels = library(name, folder, path)
        self._order = order

    def get_function(self, name: str) -> HostKernel:
        return HostKernel(name, getattr(self._library, f"launch_{name}"), self._kernels[name], self._order)


class HostKernel:
    """Stands where a `cupy.RawKernel` stands: kernel(grid, block, arguments, shared_mem=bytes)."""

    def __init__(self, name: str, launch: Any, parameters: list[tuple[str, bool, bool]], order: Callable[[], int]):
        self.name, self._launch, self._parameters, self._order = name, launch, parameters, order
        self.writes = [written for _, _, written in parameters]
        self.max_dynamic_shared_size_bytes = 48 << 10
        launch.restype = ctypes.c_char_p

    def __call__(self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *, shared_mem: int = 0) -> None:
        dimensions = [(*tuple(d), 1, 1)[:3] for d in (grid, block)]
        assert all(1 <= d < 2**31 for d in dimensions[0][:1]), f"{self.name}: grid {grid}"
        assert all(1 <= d <= 65535 for d in dimensions[0][1:]), f"{self.name}: grid {grid}"
        assert 1 <= np.prod(dimensions[1]) <= 1024, f"{self.name}: block {block}"
        assert shared_mem <= self.max_dynamic_shared_size_bytes, f"{self.name}: {shared_mem} bytes of shared memory"
        assert len(args) == len(self._parameters), f"{self.name} takes {len(self._parameters)}, got {len(args)}"
        copies: Copies = {}
        fields: list[tuple[str, Any]] = []
        values = []
        for i, (value, (kind, pointer, _)) in enumerate(zip(args, self._parameters, strict=True)):
            where = f"{self.name}, argument {i}"
            assert value.dtype == TYPES[kind], f"{where} is {kind}, got {value.dtype}"
            fields.append((f"p{i}", ctypes.c_void_p if pointer else np.ctypeslib.as_ctypes_type(TYPES[kind])))
            if pointer:
                assert isinstance(value, np.ndarray), f"{where} is an array"
                assert value.flags.c_contiguous, f"{where} is not contiguous"
                values.append(self._watched(value, copies))
            else:
                assert isinstance(value, np.generic), f"{where} is a scalar"
                values.append(value.item())
        structure = type("Arguments", (ctypes.Structure,), {"_fields_": fields})(*values)
        sizes = (ctypes.c_uint * 6)(*dimensions[0], *dimensions[1])
        failure = self._launch(sizes, ctypes.c_uint(shared_mem), ctypes.c_int(self._order()), ctypes.byref(structure))
        assert failure is None, f"{self.name}: {failure.decode()}"
        for value, whole, inside in copies.values():
            edges = np.concatenate([whole[:GUARD], whole[GUARD + value.nbytes :]])
            assert (edges == FILLED).all(), f"{self.name} writes beyond an array of {value.nbytes} bytes"
            if value.flags.writeable:
                value.reshape(-1).view(np.uint8)[...] = inside

    @staticmethod
    def _watched(value: np.ndarray, copies: Copies) -> int:
        """The address of a copy with filled memory around it, at the alignment that the original has."""
        address, key = value.ctypes.data, (value.ctypes.data, value.nbytes)
        if key not in copies:
            buffer = np.full(value.nbytes + 2 * GUARD + 512, FILLED, dtype=np.uint8)
            offset = (address % GUARD if value.size else 0) - buffer.ctypes.data % GUARD
            whole = buffer[offset % GUARD :][: value.nbytes + 2 * GUARD]
            inside = whole[GUARD : GUARD + value.nbytes]
            inside[...] = value.reshape(-1).view(np.uint8)
            copies[key] = (value, whole, inside)
        return int(copies[key][2].ctypes.data)
