"""All GPU benches in one run of about ten minutes: kernels are verified and timed, products chosen, BERT run.

    python bench/gpu.py                     # all of it
    python bench/gpu.py --only kernels      # or products, or bert
    python bench/gpu.py --shape base --tokens 512

Before anything is timed, every kernel is compared with NumPy bit by bit, and every inference with its float64 twin.
Each time is printed with the fraction of the device's ceilings that it reaches. The ceilings are measured in the same
run: a large copy, and long runs of operations in registers (peaks.cu). The bench prints tables, writes
bench/results/gpu.json, and records the fastest way of each matrix product in the package's table. Without a GPU, the
exit status is 2.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpu_bert
import gpu_kernels
import gpu_products
import numpy as np
from gpu_clock import PEAKS, DeviceClock, peaks
from report import RESULTS, machine, record

import secformer.mpc.kernels.cuda
from secformer.mpc.backend import Backend, choose_backend
from secformer.mpc.errors import BackendUnavailable
from secformer.mpc.kernels import NumpyKernels
from secformer.mpc.kernels.cuda.launch import CudaKernels

NO_GPU = 2
PARTS = ("kernels", "products", "bert")
VERIFIED = 100_003  # elements: many blocks, and an incomplete last one


def settings() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="run this part only; may be repeated")
    parser.add_argument("--shape", choices=("base", "large"), action="append", help="default: both")
    parser.add_argument("--tokens", type=int, action="append", help="default: 128 and 512")
    parser.add_argument("--recipe", default="faithful")
    parser.add_argument("--repeat", type=int, default=5, help="timed inferences of each kind")
    parser.add_argument("--texts", type=int, default=32, help="texts of a batch of the first length; 1: no batch")
    parser.add_argument("--no-eager", dest="eager", action="store_false", help="skip runs launch by launch")
    parser.add_argument("--keep-table", action="store_true", help="do not change the package's table of products")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default: bench/results)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = settings().parse_args(argv)
    try:
        backend = choose_backend("cupy")
    except BackendUnavailable as error:
        print(f"no GPU, so nothing was measured: {error}", file=sys.stderr)
        return NO_GPU
    started = time.perf_counter()
    with backend.lane():
        kernels = CudaKernels(backend)
        result = measured(kernels, backend.xp, args)
    result["seconds_of_the_bench"] = round(time.perf_counter() - started, 1)
    save(result, args.out)
    return 0


def save(result: dict[str, Any], folder: Path) -> Path:
    """Records what was measured on this device, beside what the file has of others. Parts that were not measured again
    stay, with the commit that they were measured at."""
    path, name = folder / "gpu.json", result["device"]["name"]
    known: dict[str, Any] = json.loads(path.read_text("utf-8")).get("devices", {}) if path.is_file() else {}
    facts = machine()
    now = {part: {"commit": facts["commit"], "rows": rows} if part in PARTS else rows for part, rows in result.items()}
    return record("gpu", {"devices": known | {name: known.get(name, {}) | now}}, folder)


def measured(kernels: CudaKernels, cupy: Any, args: argparse.Namespace) -> dict[str, Any]:
    only, clock = args.only or PARTS, DeviceClock(cupy)
    facts = device_facts(kernels, cupy)
    print(f"{facts['name']}, compute capability {facts['capability'] / 10:.1f}, {facts['multiprocessors']} "
          f"multiprocessors")
    reference = NumpyKernels(Backend("numpy", np, 1))
    wrong = gpu_kernels.verify(kernels, reference, VERIFIED)
    wanted = gpu_products.measured_shapes()
    wrong += gpu_products.verify(kernels, reference, wanted)
    if wrong:
        raise SystemExit("the device and NumPy disagree, so nothing is timed: " + "; ".join(wrong))
    print("every kernel gives NumPy's answer, bit by bit")
    result: dict[str, Any] = {"device": facts}
    if "kernels" in only or "products" in only:
        ceilings = peaks(cupy, clock, kernels.device.capability)
        result["peaks"] = {"how": "measured in this run: a copy of 1 GiB (bytes read and written), and peaks.cu",
                           **ceilings}
        print(f"copy: {ceilings['memory'] / 1e12:.2f} TB/s")
        for name, (_, _, what) in PEAKS.items():
            if (key := name.removeprefix("peak_")) in ceilings:
                print(f"{key}: {ceilings[key] / 1e12:.2f} T {what} per second")
    if "kernels" in only:
        result["kernels"] = gpu_kernels.measure(kernels, clock, ceilings)
        print(gpu_kernels.table(result["kernels"]))
    if "products" in only:
        rows = gpu_products.measure(kernels, clock, ceilings, wanted)
        result["products"] = rows
        print(gpu_products.table(rows))
        print(gpu_products.target(rows))
        if not args.keep_table:
            folder = Path(secformer.mpc.kernels.cuda.__file__).parent
            print(f"winners written to {gpu_products.write_table(rows, kernels.device.name, folder).name}")
    if "bert" in only:
        result["bert"] = []
        cupy.get_default_memory_pool().free_all_blocks()
        for wish in wishes(args):
            result["bert"] += gpu_bert.run(wish)
            print(gpu_bert.table(result["bert"][-len(wish.tokens):]))
            save(result, args.out)  # so far, in case the time runs out
        print(gpu_bert.target(result["bert"]))
    return result


def wishes(args: argparse.Namespace) -> list[gpu_bert.Wanted]:
    """The inferences to run: one text as a graph, one launch by launch, a batch as a graph."""
    tokens = tuple(args.tokens or (128, 512))
    found = [gpu_bert.Wanted(shape, tokens, args.recipe, args.repeat) for shape in args.shape or ("base", "large")]
    if args.texts > 1:
        found.append(gpu_bert.Wanted(found[0].shape, tokens[:1], args.recipe, 2, texts=args.texts))
    if args.eager:
        found.append(gpu_bert.Wanted(found[0].shape, tokens, args.recipe, 2, graph="off"))
    return found


def device_facts(kernels: CudaKernels, cupy: Any) -> dict[str, Any]:
    attributes = cupy.cuda.Device().attributes
    _, memory = cupy.cuda.runtime.memGetInfo()
    return {
        "name": kernels.device.name, "capability": kernels.device.capability, "memory_bytes": int(memory),
        "multiprocessors": attributes["MultiProcessorCount"], "clock_khz": attributes.get("ClockRate"),
        "driver": cupy.cuda.runtime.driverGetVersion(), "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
    }


if __name__ == "__main__":
    sys.exit(main())
