"""The CUDA sources: what is launched exists, and every file compiles for every device that is claimed."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cuda_lab import FILES, FOLDER

from secformer.mpc.kernels.cuda.device import OPTIONS, SOURCES, source
from secformer.mpc.kernels.cuda.guards import GUARDS, SLICE, THREADS
from secformer.mpc.kernels.cuda.launch import EXPANDERS, FUNCTIONS
from secformer.mpc.kernels.cuda.products import SIDE, STAGES, STEP, TILE
from secformer.mpc.kernels.points import BLOCK, LEAF

WANTED = ("70", "80", "90")  # compute capabilities; a compiler that dropped one says so itself


def test_every_kernel_that_is_launched_exists() -> None:
    assert sorted(SOURCES) == FILES
    for file, names in SOURCES.items():
        text = (FOLDER / f"{file}.cu").read_text()
        defined = re.findall(r"^KERNEL (\w+)\(", text, flags=re.MULTILINE)
        defined += [f"digits{d}" for d in re.findall(r"^DIGIT_PRODUCT\((\d), u", text, flags=re.MULTILINE)]
        split = re.findall(r"^SPLIT\((\w+), u\d+, (\d+)\)", text, flags=re.MULTILINE)
        defined += [f"split_{side}{bits}" for side, bits in split]
        assert sorted(defined) == sorted(names)


def test_constants_agree_with_the_sources() -> None:
    stated = {}
    for file in FILES:
        for name, value in re.findall(r"^#define (\w+) (\d+)\b", (FOLDER / f"{file}.cu").read_text(), re.MULTILINE):
            stated[name] = int(value)
    expected = {"THREADS": EXPANDERS, "FUNCTIONS": FUNCTIONS, "SIDE": SIDE, "STEP": STEP, "STAGES": STAGES,
                "TILE": TILE, "LEAF": LEAF, "LEAF_WORDS": BLOCK, "LOOKERS": THREADS, "SLICE": SLICE, "GUARDS": GUARDS}
    assert {name: stated[name] for name in expected} == expected


def test_multiply_and_add_are_never_fused() -> None:
    """A fused product rounds once, not twice: the parties' public coefficients would differ between backends."""
    assert "-fmad=false" in OPTIONS


def test_headers_are_part_of_the_source() -> None:
    """A compiler's cache goes by the text: a header must not hide behind its name."""
    for file in FILES:
        assert '#include "' not in source(file)
        assert source(file).count("#ifndef SECFORMER_COMMON_CUH") == 1


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("capability", WANTED)
@pytest.mark.parametrize("file", FILES)
def test_the_source_compiles(file: str, capability: str, tmp_path: Path) -> None:
    known = subprocess.run(["nvcc", "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    if f"compute_{capability}" not in known.split():
        pytest.skip(f"this nvcc no longer compiles for {capability}")
    done = subprocess.run(["nvcc", f"-arch=sm_{capability}", *OPTIONS, "-Xptxas", "-v", "-cubin",
                           "-o", str(tmp_path / "out"), str(FOLDER / f"{file}.cu")],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, done.stderr
    spilled = [int(n) for n in re.findall(r"(\d+) bytes spill", done.stderr)]
    assert spilled, done.stderr
    assert not any(spilled), f"registers do not suffice: {done.stderr}"


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
def test_the_bench_s_ceilings_compile(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(root / "bench")
    text = tmp_path / "peaks.cu"
    text.write_text(importlib.import_module("gpu_clock").peaks_source())
    done = subprocess.run(["nvcc", "-arch=sm_90", *OPTIONS, "-cubin", "-o", str(tmp_path / "out"), str(text)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("capability", WANTED)
@pytest.mark.parametrize("file", FILES)
def test_the_runtime_compiler_takes_it(file: str, capability: str) -> None:
    """As CuPy will compile it: one text, no folder to look for headers in. Needs no device."""
    try:
        nvrtc = importlib.import_module("cupy_backends.cuda.libs.nvrtc")
        nvrtc.getVersion()
    except Exception as error:  # CuPy has its own errors for a library that is not there
        pytest.skip(f"no NVRTC behind CuPy ({type(error).__name__})")
    if int(capability) < 75 and nvrtc.getVersion()[0] >= 13:
        pytest.skip(f"this NVRTC no longer compiles for {capability}")
    program = nvrtc.createProgram(source(file), f"{file}.cu", [], [])
    try:
        nvrtc.compileProgram(program, (*OPTIONS, f"-arch=sm_{capability}", "-default-device"))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
