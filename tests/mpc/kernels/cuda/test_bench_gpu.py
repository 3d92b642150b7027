"""The GPU bench, tried on the host: what it verifies, counts and writes, and what it says without a GPU."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_lab import HostModule

from secformer.mpc.backend import choose_backend
from secformer.mpc.dealer.comparisons import Less
from secformer.mpc.dealer.kinds import ExpMask, Lift, SeriesMask
from secformer.mpc.dealer.products import MatMul
from secformer.mpc.errors import BackendUnavailable
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.cuda.bundles import Bundled
from secformer.mpc.kernels.cuda.launch import CudaKernels
from secformer.mpc.kernels.cuda.ways import BYTES, FLOAT64, INTEGER, WAYS, Choice, Product

PEAKS = {"memory": 1e12, "bytes": 1e15, "words": 1e12, "numbers": 1e13, "doubles": 1e13}
SMALL = [Product(1, 9, 33, 5, 64), Product(2, 8, 20, 8, 48), Product(1, 12, 40, 10, 32)]


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(root / "bench")
    return importlib.import_module


@pytest.fixture
def host(on_host: Callable[[int], CudaKernels]) -> CudaKernels:
    return on_host(0)


def test_without_a_gpu_it_says_so(root: Path, tmp_path: Path) -> None:
    try:
        choose_backend("cupy")
    except BackendUnavailable:
        pass
    else:
        pytest.skip("there is a GPU here")
    done = subprocess.run([sys.executable, str(root / "bench" / "gpu.py"), "--out", str(tmp_path)],
                          capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(root)})
    assert done.returncode == 2
    assert "no GPU, so nothing was measured" in done.stderr
    assert not list(tmp_path.iterdir())


def test_kernels_are_verified_and_counted(
    bench: Callable[[str], ModuleType], host: CudaKernels, reference: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels, clock = bench("gpu_kernels"), bench("gpu_clock").HostClock()
    assert kernels.verify(host, reference, 40) == []
    covered = {name for case in kernels.cases() for name in case.run.__code__.co_names}
    own = {n for of in (CudaKernels, Bundled) for n, f in vars(of).items() if callable(f) and not n.startswith("_")}
    others = {"flip_bits", "outcome", "exponential", "factor", "share", "ready", "as_key", "claim_keys",
              "points"}
    assert own - covered - others == {"matmul", "joint"}, "every kernel is in the bench"
    monkeypatch.setattr(kernels, "SHRINK", 1 << 18)
    rows = kernels.measure(host, clock, PEAKS)
    assert all(r["seconds"] > 0 and r["share_of_memory"] > 0 for r in rows)
    assert len(kernels.table(rows).splitlines()) == len(rows) + 1
    monkeypatch.setattr(host, "unpack", lambda payload, n, bits: reference.unpack(payload, n, bits) ^ np.uint64(1))
    assert kernels.verify(host, reference, 40) == ["unpack, 48 bits"]


def test_products_are_verified_timed_and_chosen(
    bench: Callable[[str], ModuleType], host: CudaKernels, reference: Kernels, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    products, clock = bench("gpu_products"), bench("gpu_clock").HostClock()
    assert products.verify(host, reference, SMALL) == []
    rows = products.measure(host, clock, PEAKS, SMALL)
    assert [set(r["seconds"]) for r in rows] == [set(WAYS)] * 3
    assert len(products.table(rows).splitlines()) == 4
    for device in ("one", "another"):
        path = products.write_table(rows, device, tmp_path)
    assert set(json.loads(path.read_text())) == {"one", "another"}
    monkeypatch.setattr("secformer.mpc.kernels.cuda.ways.files", lambda package: tmp_path)
    measured = importlib.import_module("secformer.mpc.kernels.cuda.ways").recorded("another")
    assert [shape for shape, _ in measured] == SMALL
    assert Choice(90, measured)(SMALL[0]) == rows[0]["fastest"]
    wide = 10 * products.AT_LEAST
    told = products.target([{"product": vars(products.TARGET), "fastest": BYTES, "words_a_second": wide}])
    assert "100.00 TMAC/s by bytes" in told
    assert "reached" in told
    monkeypatch.setattr(host.products, "_ways", host.products._ways | {BYTES: lambda a, b, out, shape: None})
    assert all("bytes" in name for name in products.verify(host, reference, SMALL))
    assert products.verify(host, reference, SMALL)


def test_shares_of_a_ceiling(bench: Callable[[str], ModuleType]) -> None:
    """A product at its unit's ceiling has a share of one: 36 products of bytes a word at 64 bits, 10 at 32."""
    share, shape = bench("gpu_products").share, Product(1, 100, 100, 100, 64)
    assert share(shape, BYTES, 36e6 / PEAKS["bytes"], PEAKS) == pytest.approx(1)
    assert share(Product(1, 100, 100, 100, 32), BYTES, 10e6 / PEAKS["bytes"], PEAKS) == pytest.approx(1)
    assert share(shape, INTEGER, 1e6 / PEAKS["words"], PEAKS) == pytest.approx(1)
    assert share(shape, FLOAT64, 1.0, PEAKS) is None


def test_a_model_is_verified_before_it_is_timed(
    bench: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    bert = bench("gpu_bert")
    wanted = bert.Wanted("tiny", (8,), repeat=1, backend="numpy")
    (row,) = rows = bert.run(wanted)
    assert row["error_to_twin"] <= bert.TOLERANCE
    assert row["seconds_end_to_end"] > 0
    assert len(bert.table(rows).splitlines()) == 2
    assert "was not run" in bert.target(rows)
    target: dict[str, Any] = {"shape": "base", "tokens": 512, "layers": 12, "seconds_end_to_end": 2.0, "texts": 1,
                              "graph": "auto"}
    assert "MISSED" in bert.target([target])
    assert "reached" in bert.target([target | {"seconds_end_to_end": 0.01}])
    assert "reached" not in bert.target([target | {"seconds_end_to_end": 0.01, "graph": "off"}])
    monkeypatch.setattr(bert, "TOLERANCE", 0.0)
    with pytest.raises(SystemExit, match="nothing is timed"):
        bert.run(wanted)


class Ticks:
    """Where CuPy has events: the host's clock."""

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass


def pretended(bench: Callable[[str], ModuleType], folder: Path) -> SimpleNamespace:
    """As much of CuPy as the bench asks for beside arrays, on the host; ceilings run on fibers."""
    source = folder / "peaks.cu"
    source.write_text(bench("gpu_clock").peaks_source())
    cuda = SimpleNamespace(
        Event=Ticks, get_elapsed_time=lambda a, b: 1e3 * (b.at - a.at),
        Device=lambda: SimpleNamespace(attributes={"MultiProcessorCount": 1}),
        runtime=SimpleNamespace(memGetInfo=lambda: (1, 2), driverGetVersion=lambda: 0, runtimeGetVersion=lambda: 0),
    )
    return SimpleNamespace(
        empty=np.empty, copyto=np.copyto, cuda=cuda, __version__="none",
        RawModule=lambda code, options: HostModule("peaks", folder, path=source),
        get_default_memory_pool=lambda: SimpleNamespace(free_all_blocks=lambda: None),
    )


def test_the_whole_bench(
    bench: Callable[[str], ModuleType], host: CudaKernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gpu, products, inference = bench("gpu"), bench("gpu_products"), bench("gpu_bert")
    monkeypatch.setattr(bench("gpu_kernels"), "SHRINK", 1 << 18)
    monkeypatch.setattr(gpu, "VERIFIED", 20)
    monkeypatch.setattr(bench("gpu_clock"), "COPIED", 1 << 12)
    monkeypatch.setattr(bench("gpu_clock"), "ROUNDS", 1)
    monkeypatch.setattr(bench("gpu_clock").DeviceClock, "seconds", lambda self, run: self._timed(run, 1) + 1e-9)
    monkeypatch.setattr(products, "measured_shapes", lambda: SMALL)
    ran = inference.run(inference.Wanted("tiny", (8,), repeat=1, backend="numpy", layers=1))
    monkeypatch.setattr(inference, "run", lambda wanted: ran)
    args = gpu.settings().parse_args(["--out", str(tmp_path), "--keep-table"])
    result = gpu.measured(host, pretended(bench, tmp_path), args)
    assert set(result) == {"device", "peaks", "kernels", "products", "bert"}
    assert set(PEAKS) <= set(result["peaks"])
    assert len(result["bert"]) == 4  # two models, a batch, and launch by launch
    (found,) = json.loads((tmp_path / "gpu.json").read_text())["devices"].values()
    assert len(found["bert"]["rows"]) == 4
    gpu.save({"device": {"name": "another"}, "peaks": {}}, tmp_path)
    gpu.save({"device": {"name": host.device.name}, "kernels": []}, tmp_path)
    devices = json.loads((tmp_path / "gpu.json").read_text())["devices"]
    assert len(devices) == 2  # what was measured before, and elsewhere, stays
    assert devices[host.device.name]["bert"] == found["bert"] and devices[host.device.name]["kernels"]["rows"] == []
    assert "every kernel gives NumPy's answer" in capsys.readouterr().out
    monkeypatch.setattr(products, "verify", lambda *given: ["a product"])
    with pytest.raises(SystemExit, match="nothing is timed: a product"):
        gpu.measured(host, pretended(bench, tmp_path), args)


def test_floors_are_counted_from_a_plan(bench: Callable[[str], ModuleType]) -> None:
    floors = bench("gpu_floor").floors
    kinds = [MatMul(((2, 3), (3, 4)), (48, 48), ((0, 1, 48),), (None, 0)), SeriesMask(10, 24, 7, 48),
             ExpMask(5, 24, 6, 1 << 18, 41), Less(3, 24, 48, 2), Lift(9, 16, 48)]
    assert floors(kinds) == {
        "words_by_bits": {48: 5 * 24}, "products_of_bytes": 5 * 24 * 21, "series_words": 2 * 7 * 10,
        "table_bytes": 3 * (2 * (4 + 8) + 32 + 32 + 16) + 8 * 4 * 5,
    }


def test_the_host_s_share_is_timed_with_idle_kernels(bench: Callable[[str], ModuleType], tmp_path: Path) -> None:
    floor = bench("gpu_floor")
    bench("bert").checkpoint(tmp_path, 1, 8, 2, 0)
    found = floor.host_time(tmp_path, "faithful", 2)
    assert found["seconds"] > 0
    assert found["launches"]["unseal"] > 10
    assert floor.plan_of(tmp_path, floor.ids_of(6), "faithful").rounds > 10
