"""The least work of an inference, counted from its plan, and the time of the host alone. Needs no GPU.

    python bench/gpu_floor.py --shape base --tokens 128
    python bench/gpu_floor.py --host-only

The host's time comes from a model of the same depth whose kernels do nothing. It is Python's own time for a run. The
kernel launches of the run are counted, too.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import bert
import numpy as np
from gpu_bert import ids_of

from secformer import SecureModel
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import measure
from secformer.mpc.backend import Backend
from secformer.mpc.dealer.comparisons import Comparison
from secformer.mpc.dealer.kinds import ExpMask, Kind, SeriesMask
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.products import MatMul
from secformer.mpc.kernels.cuda.device import Device
from secformer.mpc.kernels.cuda.launch import CudaKernels
from secformer.mpc.kernels.cuda.ways import digits
from secformer.mpc.simulate import World
from secformer.protocols.recipes import recipe_named

PRODUCTS = 5  # products per pair of words: two at each party, one at the dealer


class Idle:
    """Takes the place of CuPy's modules and kernels, and counts launches."""

    def __init__(self, counted: Counter[str], name: str = ""):
        self._counted, self._name = counted, name

    def get_function(self, name: str) -> Idle:
        return Idle(self._counted, name)

    def __call__(self, grid: Any, block: Any, arguments: Any, **how: Any) -> None:
        self._counted[self._name] += 1


def idle_kernels(counted: Counter[str]) -> CudaKernels:
    return CudaKernels(Backend("numpy", np, 1), Device("none", 90, lambda file: Idle(counted)))


def floors(kinds: Iterable[Kind]) -> dict[str, Any]:
    """Multiplications of words per number of bits wanted, as products of bytes; words and bytes of material."""
    words: Counter[int] = Counter()
    bytes_, series, tables = 0, 0, 0
    for kind in kinds:
        if isinstance(kind, MatMul):
            for i, j, bits in kind.pairs:
                work, d = PRODUCTS * math.prod(kind.shapes[i]) * kind.shapes[j][-1], digits(bits)
                words[bits] += work
                bytes_ += work * d * (d + 1) // 2
        elif isinstance(kind, SeriesMask):
            series += 2 * kind.harmonics * kind.count
        elif isinstance(kind, ExpMask):
            tables += 8 * kind.entries * kind.count
        elif isinstance(kind, Comparison):
            tables += sum(field.count * (1 if field.xor else 8) for field in kind.derived())
    return {"words_by_bits": dict(sorted(words.items())), "products_of_bytes": bytes_, "series_words": series,
            "table_bytes": tables}


def loaded(folder: Path, texts: dict[str, Any], recipe: str, kernels: CudaKernels) -> SecureModel:
    """A model on kernels that do nothing. Its answers are meaningless."""
    chosen = recipe_named(recipe)
    model = SecureModel.from_pretrained(folder, backend="numpy", recipe=chosen, untrained_recipe=True,
                                        profile=measure(ModelFolder(folder), texts, recipe=chosen))
    model.world, model.provisioning = World(kernels=kernels, fixed=model.settings.fixed), None
    model.provision()
    return model


def plan_of(folder: Path, texts: dict[str, Any], recipe: str) -> Plan:
    """The plan of one inference, as a GPU would run it. Only the range profile is computed."""
    model = loaded(folder, texts, recipe, idle_kernels(Counter()))
    assert model.world is not None
    plans, record = [], model.world.recorder.record

    def kept(*given: Any) -> Plan:
        plans.append(record(*given))
        return plans[-1]

    model.world.recorder.record = kept  # type: ignore[method-assign]
    model(texts)
    return plans[-1]


def host_time(folder: Path, recipe: str, repeat: int) -> dict[str, Any]:
    """Seconds of a run whose kernels do nothing, on a few tokens: Python's time, which does not depend on the sizes."""
    counted: Counter[str] = Counter()
    texts = ids_of(16)
    with loaded(folder, texts, recipe, idle_kernels(counted)) as model:
        model(texts)
        counted.clear()
        seconds = []
        for _ in range(repeat):
            started = time.perf_counter()
            model(texts)
            seconds.append(time.perf_counter() - started)
    return {"seconds": median(seconds), "launches": {name: n // repeat for name, n in counted.most_common()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=bert.SHAPES, default="base")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--recipe", default="faithful")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--host-only", action="store_true")
    args = parser.parse_args()
    layers, hidden, heads = bert.SHAPES[args.shape]
    with tempfile.TemporaryDirectory() as at:
        bert.checkpoint(Path(at), layers, 4 * heads, heads, 0)
        found = host_time(Path(at), args.recipe, args.repeat)
        print(f"host: {found['seconds']:.3f} s, {sum(found['launches'].values())} launches: {found['launches']}")
        if not args.host_only:
            bert.checkpoint(Path(at), layers, hidden, heads, 0)
            plan = plan_of(Path(at), ids_of(args.tokens), args.recipe)
            print(f"plan: {plan.rounds} rounds, {plan.bytes / 1e6:.0f} MB online, {plan.dealer_bytes / 1e6:.0f} MB "
                  f"from the dealer; {floors(plan.kinds)}")


if __name__ == "__main__":
    main()
